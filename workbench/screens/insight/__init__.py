"""Insight: what the feedback and the versions come to, a figure at a time."""
