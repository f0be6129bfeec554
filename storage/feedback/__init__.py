"""Feedback: the log of ratings, what of it counts, the numbers told of it, and what to rate next."""
