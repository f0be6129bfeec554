-- Pairs of an older and a newer version are drawn by lot (storage/feedback/streams.py): the first answer of each to a
-- prompt, the second of each and so on are a pair, in the order of the lots of the newer ones.
ALTER TABLE answers ADD COLUMN ordinal INTEGER NOT NULL DEFAULT 0;  -- among those of its version to its prompt, from 1
CREATE TEMP TABLE numbered (sample INTEGER PRIMARY KEY, ordinal INTEGER);
INSERT INTO numbered SELECT sample, row_number() OVER (PARTITION BY prompt, version ORDER BY sample) FROM answers;
UPDATE answers SET ordinal = (SELECT numbered.ordinal FROM numbered WHERE numbered.sample = answers.sample);
DROP TABLE temp.numbered;
CREATE INDEX answers_by_ordinal ON answers (prompt, version, ordinal);
CREATE INDEX answers_of_version ON answers (language, version, lot);
DROP TRIGGER samples_are_answers;
CREATE TRIGGER samples_are_answers AFTER INSERT ON samples
WHEN NEW.origin = 'model' AND NEW.finish_reason != 'cancelled'
BEGIN
    INSERT INTO answers SELECT NEW.sequence, prompts.sequence, ifnull(versions.sequence, 0),
        (SELECT min(same.sequence) FROM samples AS same WHERE same.prompt_id = NEW.prompt_id AND same.text = NEW.text
                AND same.origin = 'model' AND same.finish_reason != 'cancelled'),
        language, substr(NEW.id, -8),
        (SELECT ifnull(max(ordinal), 0) + 1 FROM answers
         WHERE prompt = prompts.sequence AND version = ifnull(versions.sequence, 0))
        FROM prompts LEFT JOIN versions ON versions.name = NEW.version WHERE prompts.id = NEW.prompt_id;
    INSERT INTO topics SELECT answers.prompt, answers.version, prompts.language, 1, NEW.sequence, NULL
        FROM answers JOIN prompts ON prompts.sequence = answers.prompt WHERE answers.sample = NEW.sequence
        ON CONFLICT DO UPDATE SET answers = answers + 1, newest = excluded.newest;
END;
