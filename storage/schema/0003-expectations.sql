-- What the reward model that a version was trained on expected of answers that raters are asked about next.

CREATE TABLE expectations (
    sample_id TEXT PRIMARY KEY REFERENCES samples (id),
    reward REAL NOT NULL,
    deviation REAL NOT NULL
) STRICT;
