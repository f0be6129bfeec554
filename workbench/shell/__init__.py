"""The shell: the app around the screens, its bars, keys, themes and what it remembers."""
