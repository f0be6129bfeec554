-- Who rates; from which slice of the review queue a rating came; and what the slices are drawn from.
CREATE TABLE raters (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('human', 'ai', 'simulated')),
    languages TEXT NOT NULL DEFAULT '[]',  -- tags, as JSON: what they read; none is every language
    gold INTEGER NOT NULL DEFAULT 0,       -- 1: what they say is right, and others are asked the same
    created_at TEXT NOT NULL
) STRICT;

-- One of storage.feedback.mix.SLICES; null for what the queue did not bring. Figures that must not be moved by what the
-- queue chooses are of `random` alone.
ALTER TABLE ratings ADD COLUMN slice TEXT;

-- The lot of an answer is the random end of its key: those with the lowest lots are the random slice's alone.
ALTER TABLE answers ADD COLUMN language TEXT NOT NULL DEFAULT '';
ALTER TABLE answers ADD COLUMN lot TEXT NOT NULL DEFAULT '';
UPDATE answers SET (language, lot) = (
    SELECT language, substr(samples.id, -8) FROM samples JOIN prompts ON prompts.id = prompt_id
    WHERE samples.sequence = answers.sample);
CREATE INDEX answers_by_lot ON answers (language, lot);
DROP TRIGGER samples_are_answers;
CREATE TRIGGER samples_are_answers AFTER INSERT ON samples
WHEN NEW.origin = 'model' AND NEW.finish_reason != 'cancelled'
BEGIN
    INSERT INTO answers SELECT NEW.sequence, sequence, ifnull((SELECT sequence FROM versions WHERE name = NEW.version), 0),
        (SELECT min(same.sequence) FROM samples AS same WHERE same.prompt_id = NEW.prompt_id AND same.text = NEW.text
                AND same.origin = 'model' AND same.finish_reason != 'cancelled'),
        language, substr(NEW.id, -8)
        FROM prompts WHERE id = NEW.prompt_id;
    INSERT INTO topics SELECT answers.prompt, answers.version, prompts.language, 1, NEW.sequence, NULL
        FROM answers JOIN prompts ON prompts.sequence = answers.prompt WHERE answers.sample = NEW.sequence
        ON CONFLICT DO UPDATE SET answers = answers + 1, newest = excluded.newest;
END;

CREATE TRIGGER answers_change_language AFTER UPDATE OF language ON prompts WHEN OLD.language != NEW.language
BEGIN
    DELETE FROM telling_pairs WHERE sample IN (SELECT sample FROM answers WHERE prompt = NEW.sequence);
    UPDATE answers SET language = NEW.language WHERE prompt = NEW.sequence;
END;

-- What a rater judged in a language, in order: for repeats, and for what one rater judged and another did not.
CREATE INDEX counted_by_rater_and_language ON counted (rater, language);

-- The pairs of whose outcome the newest reward model knows least (trainer/reward/acquisition.py), in the order in which
-- to ask about them; `sample` and `other` are sequences, the lower one first.
CREATE TABLE telling_pairs (
    language TEXT NOT NULL,
    place INTEGER NOT NULL,
    sample INTEGER NOT NULL,
    other INTEGER NOT NULL,
    nats REAL NOT NULL,
    PRIMARY KEY (language, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX ratings_by_slice ON ratings (slice) WHERE slice NOT NULL;
