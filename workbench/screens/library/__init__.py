"""Library: every prompt, its answers, and all that was ever said of them."""
