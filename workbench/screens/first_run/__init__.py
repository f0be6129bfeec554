"""First run: what to do in an empty workspace."""
