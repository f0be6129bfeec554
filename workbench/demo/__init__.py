"""The whole loop with no hands: prompts, a simulated rater, and the walk through it."""
