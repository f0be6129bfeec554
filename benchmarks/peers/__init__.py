"""Programs that run in processes of their own, so that each side has its own memory and its own libraries."""
