"""No Python side."""
