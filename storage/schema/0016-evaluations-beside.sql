-- What a version gained over another on the same items stands beside what it has by itself.
ALTER TABLE evaluations ADD COLUMN against TEXT REFERENCES versions (name);
