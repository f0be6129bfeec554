-- How many of a prompt's messages, the earliest after the system message, were left out when a sample was drawn because
-- the model's context had no room for them. And the prompts that somebody typed, newest first, for the list of
-- conversations.
ALTER TABLE samples ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;
CREATE INDEX prompts_typed ON prompts (sequence) WHERE origin = 'typed';
