-- needs fts5
-- A prompt of an import that was swept away is not found any more.
CREATE TRIGGER prompts_are_found_no_more AFTER DELETE ON prompts
BEGIN
    INSERT INTO prompt_search (prompt_search, rowid, search_form) VALUES ('delete', OLD.sequence, OLD.search_form);
END;
