"""The answers to a unary call, in nghttp2's terms. Nothing of it is visible from Python."""
