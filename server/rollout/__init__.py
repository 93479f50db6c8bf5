"""Deploying, splitting and taking back: what serves, how it changes, and what is remembered."""
