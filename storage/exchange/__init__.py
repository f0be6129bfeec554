"""Feedback in and out as files: one module a file format, `entries` for what a record means, import and export."""
