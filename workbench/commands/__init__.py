"""The headless commands, one file each; `workbench/cli.py` finds them by name when they are called."""
