"""The language model itself: finding it, talking to it, sampling from it quickly, and the log-probabilities of its words."""
