"""A version told to a colleague, as one page."""
