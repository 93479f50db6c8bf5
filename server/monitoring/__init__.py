"""Watching what is scored: sampled decisions go from the loops' rings to background monitors."""
