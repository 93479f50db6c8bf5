"""The generator's loop. Nothing of it is visible from Python."""
