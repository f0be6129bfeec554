-- What is said about a prompt may be corrected: its language, its task, and to a stricter split. Each correction is kept.
-- Marks of Arabic and Hebrew vowels are left out of what is searched, as those of Latin letters were before.
CREATE TABLE prompt_changes (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    prompt_id TEXT NOT NULL,
    field TEXT NOT NULL CHECK (field IN ('language', 'task', 'split')),
    was TEXT NOT NULL,
    became TEXT NOT NULL,
    made_by TEXT NOT NULL,  -- a rater, or what did it (`import`); empty where that is not known
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX prompt_changes_by_prompt ON prompt_changes (prompt_id);
CREATE TRIGGER prompt_changes_are_never_replaced BEFORE INSERT ON prompt_changes
WHEN EXISTS (SELECT 1 FROM prompt_changes WHERE sequence = NEW.sequence)
BEGIN
    SELECT RAISE(ABORT, 'changes of prompts are append-only');
END;
CREATE TRIGGER prompt_changes_are_never_changed BEFORE UPDATE ON prompt_changes
BEGIN
    SELECT RAISE(ABORT, 'changes of prompts are append-only');
END;
CREATE TRIGGER prompt_changes_are_never_deleted BEFORE DELETE ON prompt_changes
BEGIN
    SELECT RAISE(ABORT, 'changes of prompts are append-only');
END;

DROP TRIGGER prompts_are_never_changed;
UPDATE prompts SET search_form = search_form(search_form) WHERE search_form != search_form(search_form);
CREATE TRIGGER prompts_are_never_changed BEFORE UPDATE ON prompts
WHEN OLD.sequence != NEW.sequence OR OLD.id != NEW.id OR OLD.text != NEW.text OR OLD.text_key != NEW.text_key
    OR OLD.search_form != NEW.search_form OR OLD.system != NEW.system OR OLD.origin != NEW.origin
    OR OLD.created_at != NEW.created_at OR OLD.earlier != NEW.earlier OR OLD.opening != NEW.opening
BEGIN
    SELECT RAISE(ABORT, 'prompts are append-only: ask a new one instead of changing what was asked');
END;

-- Whatever holds a copy of a prompt's language, or counts by it, goes along.
CREATE TRIGGER prompts_change_language AFTER UPDATE OF language ON prompts WHEN OLD.language != NEW.language
BEGIN
    UPDATE tally_of_prompts SET prompts = prompts - 1 WHERE language = OLD.language AND split = NEW.split;
    INSERT INTO tally_of_prompts VALUES (NEW.language, NEW.split, 1)
        ON CONFLICT DO UPDATE SET prompts = prompts + 1;
    UPDATE tally_of_samples SET samples = samples - (SELECT count(*) FROM samples
            WHERE prompt_id = NEW.id AND samples.origin = tally_of_samples.origin)
        WHERE language = OLD.language;
    INSERT INTO tally_of_samples
        SELECT NEW.language, origin, count(*) FROM samples WHERE prompt_id = NEW.id GROUP BY origin
        ON CONFLICT DO UPDATE SET samples = samples + excluded.samples;
    UPDATE counted SET language = NEW.language WHERE prompt = NEW.sequence;
    UPDATE topics SET language = NEW.language WHERE prompt = NEW.sequence;
END;
CREATE TRIGGER counted_change_language AFTER UPDATE OF language ON counted WHEN OLD.language != NEW.language
BEGIN
    UPDATE tally_of_ratings SET ratings = ratings - 1, teaches = teaches - NEW.teaches
        WHERE language = OLD.language AND kind = NEW.kind AND attribute = NEW.attribute AND source = NEW.source
          AND split = NEW.split;
    INSERT INTO tally_of_ratings
        VALUES (NEW.language, NEW.kind, NEW.attribute, NEW.source, NEW.split, 1, NEW.teaches)
        ON CONFLICT DO UPDATE SET ratings = ratings + 1, teaches = teaches + excluded.teaches;
    UPDATE tally_of_raters SET ratings = ratings - 1
        WHERE rater = NEW.rater AND language = OLD.language AND kind = NEW.kind;
    INSERT INTO tally_of_raters VALUES (NEW.rater, NEW.language, NEW.kind, 1)
        ON CONFLICT DO UPDATE SET ratings = ratings + 1;
END;
