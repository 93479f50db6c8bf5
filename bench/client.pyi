"""One HTTP/2 connection of the generator. Nothing of it is visible from Python."""
