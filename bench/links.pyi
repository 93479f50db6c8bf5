"""A connection's socket. Nothing of it is visible from Python."""
