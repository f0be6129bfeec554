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

-- What hidden rows add to the tallies, which count them too: readers take it off again, so that the switch adds nothing.
CREATE TABLE unseen_in_tally_of_prompts (
    language TEXT NOT NULL,
    split TEXT NOT NULL,
    prompts INTEGER NOT NULL,
    PRIMARY KEY (language, split)
) STRICT, WITHOUT ROWID;
CREATE TABLE unseen_in_tally_of_samples (
    language TEXT NOT NULL,
    origin TEXT NOT NULL,
    samples INTEGER NOT NULL,
    PRIMARY KEY (language, origin)
) STRICT, WITHOUT ROWID;
CREATE TABLE unseen_in_tally_of_ratings (
    language TEXT NOT NULL,
    kind TEXT NOT NULL,
    attribute TEXT NOT NULL,
    source TEXT NOT NULL,
    split TEXT NOT NULL,
    ratings INTEGER NOT NULL,
    teaches INTEGER NOT NULL,
    PRIMARY KEY (language, kind, attribute, source, split)
) STRICT, WITHOUT ROWID;
CREATE TABLE unseen_in_tally_of_raters (
    rater TEXT NOT NULL,
    language TEXT NOT NULL,
    kind TEXT NOT NULL,
    ratings INTEGER NOT NULL,
    PRIMARY KEY (rater, language, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE unseen_in_tally_of_lessons (
    split TEXT PRIMARY KEY,
    rated INTEGER NOT NULL,
    compared INTEGER NOT NULL,
    scored INTEGER NOT NULL,
    imitable INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW hidden_prompts AS
    SELECT sequence FROM prompts
    WHERE sequence >= (SELECT first_prompt FROM unfinished_import) AND sequence NOT IN (SELECT sequence FROM shown_prompts);
CREATE VIEW hidden_samples AS
    SELECT sequence FROM samples
    WHERE sequence >= (SELECT first_sample FROM unfinished_import) AND sequence NOT IN (SELECT sequence FROM shown_samples);
CREATE VIEW hidden_ratings AS
    SELECT sequence FROM ratings
    WHERE sequence >= (SELECT first_rating FROM unfinished_import) AND sequence NOT IN (SELECT sequence FROM shown_ratings);

-- What is swept away is counted no more.
CREATE TRIGGER prompts_are_tallied_no_more AFTER DELETE ON prompts
BEGIN
    UPDATE tally_of_prompts SET prompts = prompts - 1 WHERE language = OLD.language AND split = OLD.split;
    DELETE FROM taught_answers WHERE prompt = OLD.sequence;
    DELETE FROM imitable_texts WHERE prompt = OLD.sequence;
    DELETE FROM lessons WHERE prompt = OLD.sequence;
END;
CREATE TRIGGER samples_are_tallied_no_more AFTER DELETE ON samples
BEGIN
    UPDATE tally_of_samples SET samples = samples - 1
        WHERE origin = OLD.origin AND language = (SELECT language FROM prompts WHERE id = OLD.prompt_id);
    UPDATE imitable_texts SET times = times - 1
        WHERE OLD.origin = 'demonstration' AND text = OLD.text
          AND prompt = (SELECT sequence FROM prompts WHERE id = OLD.prompt_id);
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
