"""What several rooms of settings say alike."""

# `extra` of a Meta: a relative path that stands in a file counts from that file's directory.
PATH = {"path": True}
