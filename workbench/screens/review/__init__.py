"""Review: one answer or one pair at a time."""
