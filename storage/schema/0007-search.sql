-- needs fts5
-- Any three characters of a prompt are found without reading all prompts, in every script.
CREATE VIRTUAL TABLE prompt_search USING fts5(
    search_form, content = 'prompts', content_rowid = 'sequence', tokenize = 'trigram', columnsize = 0
);
INSERT INTO prompt_search (prompt_search) VALUES ('rebuild');
CREATE TRIGGER prompts_are_found AFTER INSERT ON prompts
BEGIN
    INSERT INTO prompt_search (rowid, search_form) VALUES (NEW.sequence, NEW.search_form);
END;
