"""The language model itself: finding it, talking to it, sampling from it, the log-probabilities of its words."""
