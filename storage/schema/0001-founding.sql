-- The founding schema.

CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE prompts (
    id TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    text_key TEXT NOT NULL,
    system TEXT NOT NULL DEFAULT '',
    language TEXT NOT NULL,
    task TEXT NOT NULL DEFAULT '',
    split TEXT NOT NULL DEFAULT 'train' CHECK (split IN ('train', 'held-out', 'ethics')),
    origin TEXT NOT NULL DEFAULT 'typed',
    created_at TEXT NOT NULL,
    UNIQUE (text_key, system, language)
) STRICT;
CREATE INDEX prompts_by_split ON prompts (split, language);

CREATE TABLE versions (
    id TEXT PRIMARY KEY,
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

CREATE TABLE version_events (
    id TEXT PRIMARY KEY,
    version TEXT NOT NULL REFERENCES versions (name),
    action TEXT NOT NULL CHECK (action IN ('publish', 'rollback', 'reject')),
    reason TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE samples (
    id TEXT PRIMARY KEY,
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
CREATE INDEX samples_by_prompt ON samples (prompt_id);
CREATE INDEX samples_by_group ON samples (group_id);
CREATE INDEX samples_by_version ON samples (version);

CREATE TABLE ratings (
    id TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    rater TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('score', 'label', 'pair', 'edit', 'tags', 'outcome', 'note', 'skip',
                                       'cannot-judge', 'undo', 'redo')),
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
CREATE INDEX ratings_by_sample ON ratings (sample_id);
CREATE INDEX ratings_by_other_sample ON ratings (other_sample_id) WHERE other_sample_id NOT NULL;
CREATE INDEX ratings_by_rater ON ratings (rater, created_at);
CREATE INDEX ratings_by_superseded ON ratings (supersedes);

CREATE TRIGGER ratings_are_never_changed BEFORE UPDATE ON ratings
BEGIN
    SELECT RAISE(ABORT, 'ratings are append-only: add a superseding event instead of changing one');
END;
CREATE TRIGGER ratings_are_never_deleted BEFORE DELETE ON ratings
BEGIN
    SELECT RAISE(ABORT, 'ratings are append-only: add an undo event instead of deleting one');
END;

-- Which events count today: derived from `ratings` alone, and rebuilt from it at will.
CREATE TABLE rating_effects (
    rating_id TEXT PRIMARY KEY REFERENCES ratings (id),
    effective INTEGER NOT NULL
) STRICT;

CREATE VIEW effective_ratings AS
    SELECT ratings.* FROM ratings JOIN rating_effects ON rating_effects.rating_id = ratings.id
    WHERE rating_effects.effective = 1 AND ratings.kind NOT IN ('undo', 'redo');

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
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
    created_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, created_at);

CREATE TABLE job_ratings (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    rating_id TEXT NOT NULL REFERENCES ratings (id),
    PRIMARY KEY (job_id, rating_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_ratings_by_rating ON job_ratings (rating_id);

CREATE TABLE metrics (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    name TEXT NOT NULL,
    language TEXT,
    step INTEGER NOT NULL,
    value REAL,
    created_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX metrics_once ON metrics (job_id, name, ifnull(language, ''), step);

CREATE TABLE rollouts (
    id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (id),
    step INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    language TEXT NOT NULL,
    text TEXT NOT NULL,
    reward REAL NOT NULL,
    kl REAL NOT NULL,
    tokens INTEGER NOT NULL
) STRICT;
CREATE INDEX rollouts_by_step ON rollouts (job_id, step);

CREATE TABLE reward_models (
    id TEXT PRIMARY KEY,
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

CREATE TABLE evaluations (
    id TEXT PRIMARY KEY,
    version TEXT NOT NULL REFERENCES versions (name),
    job_id TEXT REFERENCES jobs (id),
    suite TEXT NOT NULL,
    metric TEXT NOT NULL,
    language TEXT,
    value REAL NOT NULL,
    low REAL,
    high REAL,
    n INTEGER NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX evaluations_by_version ON evaluations (version, suite);
