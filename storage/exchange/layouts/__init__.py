"""Layouts of records: what the fields of a row mean."""
