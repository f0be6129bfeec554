-- needs fts5
-- The forms in which prompts are searched have changed.
INSERT INTO prompt_search (prompt_search) VALUES ('rebuild');
