"""What is counted of a call. Nothing of it is visible from Python."""
