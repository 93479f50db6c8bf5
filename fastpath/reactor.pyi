"""The life of a loop thread. Nothing of it is visible from Python."""
