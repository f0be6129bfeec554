"""Prompt: ask, and rate what comes."""
