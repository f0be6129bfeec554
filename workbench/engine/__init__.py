"""The engine: the process that holds the weights, and how it is spoken to."""
