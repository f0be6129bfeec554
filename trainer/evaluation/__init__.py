"""Measuring a version on prompts it was never trained on."""
