"""Memory for nghttp2's client sessions. Nothing of it is visible from Python."""
