"""What is remembered: the SQLite workspace database. Imports neither `trainer` nor `workbench`."""
