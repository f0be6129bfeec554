"""Help: every key of the screen in front."""
