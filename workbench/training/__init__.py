"""Training as the app sees it: recipes, the process it starts, and what it shows of a run."""
