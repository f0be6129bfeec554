"""The schema: its numbered steps, and how a database is brought up to date."""
