"""A connection to one Redis endpoint. Nothing of it is visible from Python."""
