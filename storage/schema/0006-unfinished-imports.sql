-- An import stores its rows in many short transactions, and nobody sees them before the last: the rows of prompts,
-- samples, ratings and `counted` from its first sequences on are hidden, except those that others wrote since (`shown`).
-- Every connection reads these tables through views that leave hidden rows out (storage/schema/visible.py). The switch is
-- the deletion of one row. An import that ended before it is swept away: its rows are the only ones that may be deleted.
CREATE TABLE unfinished_import (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    file TEXT NOT NULL,
    started_at TEXT NOT NULL,
    records INTEGER NOT NULL,
    storing INTEGER NOT NULL DEFAULT 0,  -- 1 inside the transactions in which the import stores its own rows
    first_prompt INTEGER NOT NULL,
    first_sample INTEGER NOT NULL,
    first_rating INTEGER NOT NULL
) STRICT;
CREATE TABLE shown_prompts (sequence INTEGER PRIMARY KEY) STRICT;
CREATE TABLE shown_samples (sequence INTEGER PRIMARY KEY) STRICT;
CREATE TABLE shown_ratings (sequence INTEGER PRIMARY KEY) STRICT;

CREATE TRIGGER prompts_of_others_are_shown AFTER INSERT ON prompts
WHEN EXISTS (SELECT 1 FROM unfinished_import WHERE NOT storing)
BEGIN
    INSERT INTO shown_prompts VALUES (NEW.sequence);
END;
CREATE TRIGGER samples_of_others_are_shown AFTER INSERT ON samples
WHEN EXISTS (SELECT 1 FROM unfinished_import WHERE NOT storing)
BEGIN
    INSERT INTO shown_samples VALUES (NEW.sequence);
END;
CREATE TRIGGER ratings_of_others_are_shown AFTER INSERT ON ratings
WHEN EXISTS (SELECT 1 FROM unfinished_import WHERE NOT storing)
BEGIN
    INSERT INTO shown_ratings VALUES (NEW.sequence);
END;

-- The tallies count hidden rows apart, so that the switch adds a few numbers.
DROP TRIGGER prompts_are_tallied;
DROP TRIGGER prompts_are_moved;
DROP TRIGGER samples_are_tallied;
DROP TRIGGER counted_are_tallied;
DROP TRIGGER counted_no_more_are_tallied;
DROP TRIGGER counted_are_moved;
ALTER TABLE tally_of_prompts RENAME TO tally_of_prompts_before;
ALTER TABLE tally_of_samples RENAME TO tally_of_samples_before;
ALTER TABLE tally_of_ratings RENAME TO tally_of_ratings_before;
CREATE TABLE tally_of_prompts (
    language TEXT NOT NULL,
    split TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    prompts INTEGER NOT NULL,
    PRIMARY KEY (language, split, hidden)
) STRICT, WITHOUT ROWID;
CREATE TABLE tally_of_samples (
    language TEXT NOT NULL,
    origin TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    PRIMARY KEY (language, origin, hidden)
) STRICT, WITHOUT ROWID;
CREATE TABLE tally_of_ratings (
    rater TEXT NOT NULL,
    language TEXT NOT NULL,
    kind TEXT NOT NULL,
    attribute TEXT NOT NULL,
    source TEXT NOT NULL,
    split TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    ratings INTEGER NOT NULL,
    teaches INTEGER NOT NULL,
    PRIMARY KEY (rater, language, kind, attribute, source, split, hidden)
) STRICT, WITHOUT ROWID;
INSERT INTO tally_of_prompts SELECT language, split, 0, prompts FROM tally_of_prompts_before;
INSERT INTO tally_of_samples SELECT language, origin, 0, samples FROM tally_of_samples_before;
INSERT INTO tally_of_ratings
    SELECT rater, language, kind, attribute, source, split, 0, ratings, teaches FROM tally_of_ratings_before;
DROP TABLE tally_of_prompts_before;
DROP TABLE tally_of_samples_before;
DROP TABLE tally_of_ratings_before;

CREATE VIEW hidden_prompts AS
    SELECT sequence FROM prompts
    WHERE sequence >= (SELECT first_prompt FROM unfinished_import) AND sequence NOT IN (SELECT sequence FROM shown_prompts);
CREATE VIEW hidden_samples AS
    SELECT sequence FROM samples
    WHERE sequence >= (SELECT first_sample FROM unfinished_import) AND sequence NOT IN (SELECT sequence FROM shown_samples);
CREATE VIEW hidden_ratings AS
    SELECT sequence FROM ratings
    WHERE sequence >= (SELECT first_rating FROM unfinished_import) AND sequence NOT IN (SELECT sequence FROM shown_ratings);

CREATE TRIGGER prompts_are_tallied AFTER INSERT ON prompts
BEGIN
    INSERT INTO tally_of_prompts
        VALUES (NEW.language, NEW.split, ifnull((SELECT storing FROM unfinished_import), 0), 1)
        ON CONFLICT DO UPDATE SET prompts = prompts + 1;
END;
CREATE TRIGGER prompts_are_moved AFTER UPDATE OF split ON prompts WHEN OLD.split != NEW.split
BEGIN
    UPDATE tally_of_prompts SET prompts = prompts - 1 WHERE language = OLD.language AND split = OLD.split
        AND hidden = EXISTS (SELECT 1 FROM hidden_prompts WHERE sequence = NEW.sequence);
    INSERT INTO tally_of_prompts VALUES (
        NEW.language, NEW.split, EXISTS (SELECT 1 FROM hidden_prompts WHERE sequence = NEW.sequence), 1)
        ON CONFLICT DO UPDATE SET prompts = prompts + 1;
    UPDATE counted SET split = NEW.split WHERE prompt = NEW.sequence;
END;
CREATE TRIGGER samples_are_tallied AFTER INSERT ON samples
BEGIN
    INSERT INTO tally_of_samples
        SELECT language, NEW.origin, ifnull((SELECT storing FROM unfinished_import), 0), 1
        FROM prompts WHERE id = NEW.prompt_id
        ON CONFLICT DO UPDATE SET samples = samples + 1;
END;
CREATE TRIGGER counted_are_tallied AFTER INSERT ON counted
BEGIN
    INSERT INTO tally_of_ratings VALUES (
        NEW.rater, NEW.language, NEW.kind, NEW.attribute, NEW.source, NEW.split,
        EXISTS (SELECT 1 FROM hidden_ratings WHERE sequence = NEW.sequence), 1, NEW.teaches)
        ON CONFLICT DO UPDATE SET ratings = ratings + 1, teaches = teaches + excluded.teaches;
END;
CREATE TRIGGER counted_no_more_are_tallied AFTER DELETE ON counted
BEGIN
    UPDATE tally_of_ratings SET ratings = ratings - 1, teaches = teaches - OLD.teaches
        WHERE rater = OLD.rater AND language = OLD.language AND kind = OLD.kind AND attribute = OLD.attribute
          AND source = OLD.source AND split = OLD.split
          AND hidden = EXISTS (SELECT 1 FROM hidden_ratings WHERE sequence = OLD.sequence);
END;
CREATE TRIGGER counted_are_moved AFTER UPDATE OF split ON counted WHEN OLD.split != NEW.split
BEGIN
    UPDATE tally_of_ratings SET ratings = ratings - 1, teaches = teaches - OLD.teaches
        WHERE rater = OLD.rater AND language = OLD.language AND kind = OLD.kind AND attribute = OLD.attribute
          AND source = OLD.source AND split = OLD.split
          AND hidden = EXISTS (SELECT 1 FROM hidden_ratings WHERE sequence = OLD.sequence);
    INSERT INTO tally_of_ratings VALUES (
        NEW.rater, NEW.language, NEW.kind, NEW.attribute, NEW.source, NEW.split,
        EXISTS (SELECT 1 FROM hidden_ratings WHERE sequence = NEW.sequence), 1, NEW.teaches)
        ON CONFLICT DO UPDATE SET ratings = ratings + 1, teaches = teaches + excluded.teaches;
END;

DROP TRIGGER ratings_are_never_deleted;
DROP TRIGGER samples_are_never_deleted;
DROP TRIGGER prompts_are_never_deleted;
CREATE TRIGGER ratings_are_never_deleted BEFORE DELETE ON ratings
WHEN NOT EXISTS (SELECT 1 FROM hidden_ratings WHERE sequence = OLD.sequence)
BEGIN
    SELECT RAISE(ABORT, 'ratings are append-only: add an undo event instead of deleting one');
END;
CREATE TRIGGER samples_are_never_deleted BEFORE DELETE ON samples
WHEN NOT EXISTS (SELECT 1 FROM hidden_samples WHERE sequence = OLD.sequence)
BEGIN
    SELECT RAISE(ABORT, 'samples are append-only: what was said is never deleted');
END;
CREATE TRIGGER prompts_are_never_deleted BEFORE DELETE ON prompts
WHEN NOT EXISTS (SELECT 1 FROM hidden_prompts WHERE sequence = OLD.sequence)
BEGIN
    SELECT RAISE(ABORT, 'prompts are append-only: what was asked is never deleted');
END;
