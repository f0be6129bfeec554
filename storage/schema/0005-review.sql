-- What can be reviewed, in narrow rows: the queue (storage/feedback/queue.py) reads few of them, however many answers
-- there are. All of it follows from samples, versions and expectations, and is kept as these are stored.
CREATE TABLE answers (  -- the finished answers of models
    sample INTEGER PRIMARY KEY REFERENCES samples (sequence),
    prompt INTEGER NOT NULL,
    version INTEGER NOT NULL,  -- a sequence; 0 where it is not known
    words INTEGER NOT NULL     -- the first answer to the prompt in the same words
) STRICT;
CREATE TABLE topics (  -- what one version answered to one prompt
    prompt INTEGER NOT NULL,
    version INTEGER NOT NULL,
    language TEXT NOT NULL,
    answers INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    hope REAL,  -- the most that is expected of one of the answers, and its deviation; null where nothing is
    PRIMARY KEY (prompt, version)
) STRICT, WITHOUT ROWID;
INSERT INTO answers
    SELECT samples.sequence, prompts.sequence, ifnull(versions.sequence, 0),
           min(samples.sequence) OVER (PARTITION BY prompt_id, samples.text)
    FROM samples JOIN prompts ON prompts.id = prompt_id LEFT JOIN versions ON versions.name = samples.version
    WHERE samples.origin = 'model' AND finish_reason != 'cancelled' ORDER BY samples.sequence;
INSERT INTO topics
    SELECT answers.prompt, answers.version, language, count(*), max(answers.sample), max(reward + deviation)
    FROM answers JOIN prompts ON prompts.sequence = answers.prompt JOIN samples ON samples.sequence = answers.sample
    LEFT JOIN expectations ON sample_id = samples.id GROUP BY 1, 2;
CREATE INDEX answers_by_prompt ON answers (prompt, version, words);
-- The order of the queue within a language: the newest version first; then prompts with several of its answers, which
-- teach more than single ones; then what may be the best; then what was asked last.
CREATE INDEX topics_in_order ON topics (language, version DESC, (answers < 2), hope DESC, newest DESC);

CREATE TRIGGER samples_are_answers AFTER INSERT ON samples
WHEN NEW.origin = 'model' AND NEW.finish_reason != 'cancelled'
BEGIN
    INSERT INTO answers SELECT NEW.sequence, sequence, ifnull((SELECT sequence FROM versions WHERE name = NEW.version), 0),
        (SELECT min(same.sequence) FROM samples AS same WHERE same.prompt_id = NEW.prompt_id AND same.text = NEW.text
                AND same.origin = 'model' AND same.finish_reason != 'cancelled')
        FROM prompts WHERE id = NEW.prompt_id;
    INSERT INTO topics SELECT answers.prompt, answers.version, prompts.language, 1, NEW.sequence, NULL
        FROM answers JOIN prompts ON prompts.sequence = answers.prompt WHERE answers.sample = NEW.sequence
        ON CONFLICT DO UPDATE SET answers = answers + 1, newest = excluded.newest;
END;
CREATE TRIGGER expectations_are_hopes AFTER INSERT ON expectations
BEGIN
    UPDATE topics SET hope = max(ifnull(hope, NEW.reward + NEW.deviation), NEW.reward + NEW.deviation)
        WHERE (prompt, version) = (SELECT prompt, answers.version FROM answers JOIN samples ON samples.sequence = sample
                                   WHERE samples.id = NEW.sample_id);
END;
