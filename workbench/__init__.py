"""What is seen: the Textual app and the headless commands."""
