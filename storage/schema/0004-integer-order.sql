-- Order is an integer sequence, identity is the key: no clock orders or filters anything any more. What was there keeps
-- the order in which it was written (its rowid). Ratings, samples and prompts cannot be changed, deleted or replaced,
-- whatever a connection's settings are. `counted` is what counts today, and the tallies are its sums: both are kept by
-- the transaction that appends to the log, and can be made anew from the log alone (storage/feedback/counting.py).
DROP VIEW effective_ratings;

CREATE TABLE prompts_in_order (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    id TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,
    text_key TEXT NOT NULL,
    search_form TEXT NOT NULL DEFAULT '',  -- storage.forms.search_form of the text
    system TEXT NOT NULL DEFAULT '',
    language TEXT NOT NULL,
    task TEXT NOT NULL DEFAULT '',
    split TEXT NOT NULL DEFAULT 'train' CHECK (split IN ('train', 'held-out', 'ethics')),
    origin TEXT NOT NULL DEFAULT 'typed',
    created_at TEXT NOT NULL,
    UNIQUE (text_key, system, language)
) STRICT;
INSERT INTO prompts_in_order
    SELECT rowid, id, text, text_key, search_form(text), system, language, task, split, origin, created_at
    FROM prompts ORDER BY rowid;
DROP TABLE prompts;
ALTER TABLE prompts_in_order RENAME TO prompts;
CREATE INDEX prompts_by_split ON prompts (split, language);

CREATE TABLE versions_in_order (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('base', 'lora', 'full')),
    parent TEXT REFERENCES versions (name),
    job_id TEXT REFERENCES jobs (id),
    step INTEGER,
    file TEXT,
    sha256 TEXT,
    base_model TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    gates TEXT NOT NULL DEFAULT '[]',
    metrics TEXT NOT NULL DEFAULT '{}',
    state TEXT NOT NULL CHECK (state IN ('candidate', 'published', 'rejected', 'rolled-back')),
    created_at TEXT NOT NULL,
    CHECK (kind = 'base' OR (file IS NOT NULL AND sha256 IS NOT NULL))
) STRICT;
INSERT INTO versions_in_order
    SELECT rowid, id, name, kind, parent, job_id, step, file, sha256, base_model, base_digest, gates, metrics, state,
           created_at
    FROM versions ORDER BY rowid;
DROP TABLE versions;
ALTER TABLE versions_in_order RENAME TO versions;

CREATE TABLE version_events_in_order (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL REFERENCES versions (name),
    action TEXT NOT NULL CHECK (action IN ('publish', 'rollback', 'reject')),
    reason TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL
) STRICT;
INSERT INTO version_events_in_order
    SELECT rowid, id, version, action, reason, created_at FROM version_events ORDER BY rowid;
DROP TABLE version_events;
ALTER TABLE version_events_in_order RENAME TO version_events;

CREATE TABLE samples_in_order (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    id TEXT NOT NULL UNIQUE,
    prompt_id TEXT NOT NULL REFERENCES prompts (id),
    version TEXT REFERENCES versions (name),
    text TEXT NOT NULL,
    token_ids TEXT,
    finish_reason TEXT NOT NULL DEFAULT '',
    sampling TEXT,
    seed INTEGER,
    group_id TEXT,
    position INTEGER NOT NULL DEFAULT 0,
    origin TEXT NOT NULL DEFAULT 'model',
    created_at TEXT NOT NULL
) STRICT;
INSERT INTO samples_in_order
    SELECT rowid, id, prompt_id, version, text, token_ids, finish_reason, sampling, seed, group_id, position, origin,
           created_at
    FROM samples ORDER BY rowid;
DROP TABLE samples;
ALTER TABLE samples_in_order RENAME TO samples;
CREATE INDEX samples_by_prompt ON samples (prompt_id);
CREATE INDEX samples_by_group ON samples (group_id) WHERE group_id NOT NULL;
CREATE INDEX samples_by_version ON samples (version);
CREATE INDEX samples_by_origin ON samples (origin) WHERE origin != 'model';

CREATE TABLE ratings_in_order (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    id TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL,
    rater TEXT NOT NULL,
    kind TEXT NOT NULL,  -- one of storage.feedback.kinds
    sample_id TEXT REFERENCES samples (id),
    other_sample_id TEXT REFERENCES samples (id),
    value REAL,
    choice TEXT CHECK (choice IS NULL OR choice IN ('a', 'b', 'tie', 'both-bad')),
    text TEXT,
    tags TEXT,
    attribute TEXT NOT NULL DEFAULT 'overall',
    shown_order TEXT CHECK (shown_order IS NULL OR shown_order IN ('ab', 'ba')),
    blind INTEGER NOT NULL DEFAULT 0,
    duration_ms INTEGER,
    source TEXT NOT NULL CHECK (source IN ('human', 'ai', 'imported', 'simulated')),
    scale_low REAL,
    scale_high REAL,
    guideline TEXT NOT NULL DEFAULT '',
    supersedes TEXT REFERENCES ratings (id),
    gesture TEXT,  -- what was said with one key: undone, brought back and replaced as one
    -- A CHECK that evaluates to null passes, hence the ifnull.
    CHECK (kind != 'score' OR ifnull(scale_low < scale_high AND value BETWEEN scale_low AND scale_high, 0)),
    CHECK (kind != 'label' OR ifnull(value IN (0, 1), 0)),
    CHECK (kind != 'pair' OR (choice IS NOT NULL AND other_sample_id IS NOT NULL
                              AND other_sample_id != sample_id)),
    CHECK (kind != 'tags' OR tags IS NOT NULL),
    CHECK (kind NOT IN ('edit', 'note', 'outcome') OR text IS NOT NULL),
    CHECK (kind NOT IN ('undo', 'redo') OR supersedes IS NOT NULL),
    CHECK (kind IN ('undo', 'redo') OR sample_id IS NOT NULL)
) STRICT;
INSERT INTO ratings_in_order
    SELECT rowid, id, created_at, rater, kind, sample_id, other_sample_id, value, choice, text, tags, attribute,
           shown_order, blind, duration_ms, source, scale_low, scale_high, guideline, supersedes, NULL
    FROM ratings ORDER BY rowid;
DROP TABLE ratings;
ALTER TABLE ratings_in_order RENAME TO ratings;
CREATE INDEX ratings_by_sample ON ratings (sample_id);
CREATE INDEX ratings_by_other_sample ON ratings (other_sample_id) WHERE other_sample_id NOT NULL;
CREATE INDEX ratings_by_rater ON ratings (rater, sequence, kind) WHERE source != 'imported';
CREATE INDEX ratings_by_superseded ON ratings (supersedes) WHERE supersedes NOT NULL;
CREATE INDEX ratings_by_gesture ON ratings (gesture) WHERE gesture NOT NULL;

CREATE TABLE jobs_in_order (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    config TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'paused', 'done', 'failed')),
    stage TEXT NOT NULL DEFAULT '',
    step INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    pid INTEGER,
    lease_until TEXT,
    heartbeat_at TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    checkpoint TEXT,
    log TEXT,
    error TEXT,
    hint TEXT,
    result TEXT,
    begun TEXT,  -- storage.records.Begun: the last sequence of each table when the job first began
    created_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT
) STRICT;

CREATE TABLE reward_models_in_order (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    job_id TEXT REFERENCES jobs (id),
    base_model TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    file TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    data_digest TEXT NOT NULL,
    metrics TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL
) STRICT;
INSERT INTO reward_models_in_order
    SELECT rowid, id, name, job_id, base_model, base_digest, file, sha256, data_digest, metrics, created_at
    FROM reward_models ORDER BY rowid;
DROP TABLE reward_models;
ALTER TABLE reward_models_in_order RENAME TO reward_models;

-- A job that began before this step began after the newest of what bears an earlier time.
CREATE INDEX moments_of_ratings ON ratings (created_at);
CREATE INDEX moments_of_samples ON samples (created_at);
CREATE INDEX moments_of_prompts ON prompts (created_at);
INSERT INTO jobs_in_order
    SELECT rowid, id, kind, config, state, stage, step, steps, attempts, fence, worker, pid, lease_until, heartbeat_at,
           cancel_requested, checkpoint, log, error, hint, result,
           iif(started_at IS NULL, NULL, json_object(
               'ratings', ifnull((SELECT sequence FROM ratings WHERE ratings.created_at <= started_at
                                  ORDER BY ratings.created_at DESC, sequence DESC LIMIT 1), 0),
               'prompts', ifnull((SELECT sequence FROM prompts WHERE prompts.created_at <= started_at
                                  ORDER BY prompts.created_at DESC, sequence DESC LIMIT 1), 0),
               'samples', ifnull((SELECT sequence FROM samples WHERE samples.created_at <= started_at
                                  ORDER BY samples.created_at DESC, sequence DESC LIMIT 1), 0),
               'version_events', (SELECT ifnull(max(sequence), 0) FROM version_events
                                  WHERE version_events.created_at <= started_at),
               'reward_models', (SELECT ifnull(max(sequence), 0) FROM reward_models
                                 WHERE reward_models.created_at <= started_at))),
           created_at, started_at, finished_at
    FROM jobs ORDER BY rowid;
DROP INDEX moments_of_ratings;
DROP INDEX moments_of_samples;
DROP INDEX moments_of_prompts;
DROP TABLE jobs;
ALTER TABLE jobs_in_order RENAME TO jobs;
CREATE INDEX jobs_by_state ON jobs (state);

-- What counts today: one narrow row for each rating that is neither undone nor replaced. `prompt`, `sample` and `other`
-- are sequences; of a pair `sample` is the lower one, and `other` is 0 where there is none. `teaches` is how many
-- examples the rating teaches; `answer` and `beside` number the answers that it teaches of (storage.forms.answer_number;
-- `beside` is the other one of a pair, or the edited text), and are 0 where it teaches nothing of the overall quality.
CREATE TABLE counted (
    sequence INTEGER PRIMARY KEY REFERENCES ratings (sequence),
    rater TEXT NOT NULL,
    kind TEXT NOT NULL,
    attribute TEXT NOT NULL,
    source TEXT NOT NULL,
    language TEXT NOT NULL,
    split TEXT NOT NULL,
    prompt INTEGER NOT NULL,
    sample INTEGER NOT NULL,
    other INTEGER NOT NULL,
    teaches INTEGER NOT NULL,
    answer INTEGER NOT NULL,
    beside INTEGER NOT NULL
) STRICT;
CREATE TEMP TABLE places (
    id TEXT PRIMARY KEY, sequence INTEGER, prompt INTEGER, language TEXT, split TEXT, answer INTEGER
) WITHOUT ROWID;
INSERT INTO places
    SELECT samples.id, samples.sequence, prompts.sequence, language, split, answer_number(samples.text, version, token_ids)
    FROM samples CROSS JOIN prompts ON prompts.id = prompt_id ORDER BY samples.id;
INSERT INTO counted
    SELECT sequence, rater, kind, attribute, source, language, split, prompt, sample, other, teaches,
           iif(teaches AND attribute = 'overall', answer, 0),
           iif(teaches AND attribute = 'overall', iif(kind = 'edit', answer_number(text, NULL, NULL), beside), 0)
    FROM (
        SELECT ratings.sequence, rater, kind, attribute, source, a.language, a.split, a.prompt,
               min(a.sequence, ifnull(b.sequence, a.sequence)) AS sample,
               iif(b.sequence IS NULL, 0, max(a.sequence, b.sequence)) AS other,
               CASE kind WHEN 'score' THEN 1 WHEN 'label' THEN 1 WHEN 'edit' THEN 1
                         WHEN 'pair' THEN iif(choice = 'both-bad', 2, 1)
                         WHEN 'tags' THEN examples_taught(kind, choice, tags) ELSE 0 END AS teaches,
               a.answer, ifnull(b.answer, 0) AS beside, text
        FROM ratings CROSS JOIN places AS a ON a.id = sample_id LEFT JOIN places AS b ON b.id = other_sample_id
        WHERE kind NOT IN ('undo', 'redo')
          AND ratings.id NOT IN (SELECT rating_id FROM rating_effects WHERE NOT effective));
DROP TABLE temp.places;
DROP TABLE rating_effects;
CREATE INDEX counted_by_sample ON counted (sample, rater, other, kind, attribute, source);
CREATE INDEX counted_by_other ON counted (other, rater, sample) WHERE other > 0;
CREATE INDEX counted_by_prompt ON counted (prompt);
CREATE INDEX counted_by_rater ON counted (rater) WHERE source != 'imported';

CREATE VIEW effective_ratings AS
    SELECT ratings.* FROM counted JOIN ratings ON ratings.sequence = counted.sequence;

CREATE TABLE tally_of_prompts (
    language TEXT NOT NULL,
    split TEXT NOT NULL,
    prompts INTEGER NOT NULL,
    PRIMARY KEY (language, split)
) STRICT, WITHOUT ROWID;
INSERT INTO tally_of_prompts SELECT language, split, count(*) FROM prompts GROUP BY 1, 2;

CREATE TABLE tally_of_samples (
    language TEXT NOT NULL,
    origin TEXT NOT NULL,
    samples INTEGER NOT NULL,
    PRIMARY KEY (language, origin)
) STRICT, WITHOUT ROWID;
INSERT INTO tally_of_samples
    SELECT language, samples.origin, count(*) FROM samples JOIN prompts ON prompts.id = prompt_id GROUP BY 1, 2;

CREATE TABLE tally_of_ratings (
    language TEXT NOT NULL,
    kind TEXT NOT NULL,
    attribute TEXT NOT NULL,
    source TEXT NOT NULL,
    split TEXT NOT NULL,
    ratings INTEGER NOT NULL,
    teaches INTEGER NOT NULL,
    PRIMARY KEY (language, kind, attribute, source, split)
) STRICT, WITHOUT ROWID;
INSERT INTO tally_of_ratings
    SELECT language, kind, attribute, source, split, count(*), sum(teaches) FROM counted GROUP BY 1, 2, 3, 4, 5;

CREATE TABLE tally_of_raters (
    rater TEXT NOT NULL,
    language TEXT NOT NULL,
    kind TEXT NOT NULL,
    ratings INTEGER NOT NULL,
    PRIMARY KEY (rater, language, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO tally_of_raters SELECT rater, language, kind, count(*) FROM counted GROUP BY 1, 2, 3;

CREATE TRIGGER prompts_are_tallied AFTER INSERT ON prompts
BEGIN
    INSERT INTO tally_of_prompts VALUES (NEW.language, NEW.split, 1)
        ON CONFLICT DO UPDATE SET prompts = prompts + 1;
END;
CREATE TRIGGER prompts_are_moved AFTER UPDATE OF split ON prompts WHEN OLD.split != NEW.split
BEGIN
    UPDATE tally_of_prompts SET prompts = prompts - 1 WHERE language = OLD.language AND split = OLD.split;
    INSERT INTO tally_of_prompts VALUES (NEW.language, NEW.split, 1)
        ON CONFLICT DO UPDATE SET prompts = prompts + 1;
    UPDATE counted SET split = NEW.split WHERE prompt = NEW.sequence;
END;
CREATE TRIGGER samples_are_tallied AFTER INSERT ON samples
BEGIN
    INSERT INTO tally_of_samples SELECT language, NEW.origin, 1 FROM prompts WHERE id = NEW.prompt_id
        ON CONFLICT DO UPDATE SET samples = samples + 1;
END;
CREATE TRIGGER counted_are_tallied AFTER INSERT ON counted
BEGIN
    INSERT INTO tally_of_ratings
        VALUES (NEW.language, NEW.kind, NEW.attribute, NEW.source, NEW.split, 1, NEW.teaches)
        ON CONFLICT DO UPDATE SET ratings = ratings + 1, teaches = teaches + excluded.teaches;
    INSERT INTO tally_of_raters VALUES (NEW.rater, NEW.language, NEW.kind, 1)
        ON CONFLICT DO UPDATE SET ratings = ratings + 1;
END;
CREATE TRIGGER counted_no_more_are_tallied AFTER DELETE ON counted
BEGIN
    UPDATE tally_of_ratings SET ratings = ratings - 1, teaches = teaches - OLD.teaches
        WHERE language = OLD.language AND kind = OLD.kind AND attribute = OLD.attribute AND source = OLD.source
          AND split = OLD.split;
    UPDATE tally_of_raters SET ratings = ratings - 1
        WHERE rater = OLD.rater AND language = OLD.language AND kind = OLD.kind;
END;
CREATE TRIGGER counted_are_moved AFTER UPDATE OF split ON counted WHEN OLD.split != NEW.split
BEGIN
    UPDATE tally_of_ratings SET ratings = ratings - 1, teaches = teaches - OLD.teaches
        WHERE language = OLD.language AND kind = OLD.kind AND attribute = OLD.attribute AND source = OLD.source
          AND split = OLD.split;
    INSERT INTO tally_of_ratings
        VALUES (NEW.language, NEW.kind, NEW.attribute, NEW.source, NEW.split, 1, NEW.teaches)
        ON CONFLICT DO UPDATE SET ratings = ratings + 1, teaches = teaches + excluded.teaches;
END;

-- REPLACE deletes a row without a delete trigger unless a connection asks for recursive triggers: refused beforehand.
CREATE TRIGGER ratings_are_never_replaced BEFORE INSERT ON ratings
WHEN EXISTS (SELECT 1 FROM ratings WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM ratings WHERE sequence = NEW.sequence)
BEGIN
    SELECT RAISE(ABORT, 'ratings are append-only: there is an event with this id or sequence already');
END;
CREATE TRIGGER ratings_are_never_changed BEFORE UPDATE ON ratings
BEGIN
    SELECT RAISE(ABORT, 'ratings are append-only: add a superseding event instead of changing one');
END;
CREATE TRIGGER ratings_are_never_deleted BEFORE DELETE ON ratings
BEGIN
    SELECT RAISE(ABORT, 'ratings are append-only: add an undo event instead of deleting one');
END;
CREATE TRIGGER samples_are_never_replaced BEFORE INSERT ON samples
WHEN EXISTS (SELECT 1 FROM samples WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM samples WHERE sequence = NEW.sequence)
BEGIN
    SELECT RAISE(ABORT, 'samples are append-only: there is one with this id or sequence already');
END;
CREATE TRIGGER samples_are_never_changed BEFORE UPDATE ON samples
BEGIN
    SELECT RAISE(ABORT, 'samples are append-only: what was said is never changed');
END;
CREATE TRIGGER samples_are_never_deleted BEFORE DELETE ON samples
BEGIN
    SELECT RAISE(ABORT, 'samples are append-only: what was said is never deleted');
END;
CREATE TRIGGER prompts_are_never_replaced BEFORE INSERT ON prompts
WHEN EXISTS (SELECT 1 FROM prompts WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM prompts WHERE sequence = NEW.sequence)
    OR EXISTS (SELECT 1 FROM prompts WHERE text_key = NEW.text_key AND system = NEW.system AND language = NEW.language)
BEGIN
    SELECT RAISE(ABORT, 'prompts are append-only: there is one with this id, sequence or text already');
END;
-- The split and the task of a prompt may be settled later; what is asked never changes.
CREATE TRIGGER prompts_are_never_changed BEFORE UPDATE ON prompts
WHEN OLD.sequence != NEW.sequence OR OLD.id != NEW.id OR OLD.text != NEW.text OR OLD.text_key != NEW.text_key
    OR OLD.search_form != NEW.search_form OR OLD.system != NEW.system OR OLD.language != NEW.language
    OR OLD.origin != NEW.origin OR OLD.created_at != NEW.created_at
BEGIN
    SELECT RAISE(ABORT, 'prompts are append-only: ask a new one instead of changing what was asked');
END;
CREATE TRIGGER prompts_are_never_deleted BEFORE DELETE ON prompts
BEGIN
    SELECT RAISE(ABORT, 'prompts are append-only: what was asked is never deleted');
END;
