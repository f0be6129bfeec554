"""Formats of files: each reads rows of fields with their lines."""
