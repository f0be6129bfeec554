-- A prompt is a list of messages that ends with the user's: `text` is that one, `system` what a system message says that
-- they begin with, `earlier` the messages in between, as [{"role": ..., "content": ...}, ...]. `opening` is the key of the
-- first words of the user (storage.forms.opening_key): prompts that open alike have one split. `text_key` is the key of
-- the whole prompt, which for one turn is that of its text, as before.
ALTER TABLE prompts ADD COLUMN earlier TEXT NOT NULL DEFAULT '[]';
ALTER TABLE prompts ADD COLUMN opening TEXT NOT NULL DEFAULT '';
UPDATE prompts SET opening = text_key;
CREATE INDEX prompts_by_opening ON prompts (opening);

DROP TRIGGER prompts_are_never_changed;
CREATE TRIGGER prompts_are_never_changed BEFORE UPDATE ON prompts
WHEN OLD.sequence != NEW.sequence OR OLD.id != NEW.id OR OLD.text != NEW.text OR OLD.text_key != NEW.text_key
    OR OLD.search_form != NEW.search_form OR OLD.system != NEW.system OR OLD.language != NEW.language
    OR OLD.origin != NEW.origin OR OLD.created_at != NEW.created_at OR OLD.earlier != NEW.earlier
    OR OLD.opening != NEW.opening
BEGIN
    SELECT RAISE(ABORT, 'prompts are append-only: ask a new one instead of changing what was asked');
END;
