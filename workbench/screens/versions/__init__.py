"""Versions: what was trained, and which one answers."""
