"""The way of a call from any thread to a loop thread. Nothing of it is visible from Python."""
