"""Train: start a run, watch it, compare runs."""
