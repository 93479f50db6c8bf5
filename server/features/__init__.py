"""Stored features: written from here, read by the fast path.

Record and key are `fastpath.record`'s; docs/features.md has them byte for byte. A *store
directory* holds the embedded tables (see `directory`): the online table, which is written at any
time, and per group the generations of its batch table, which are written whole and switched.

The serving process uses `tables`, `directory` and `groups` and nothing else: those import neither
py-lmdb nor pyarrow nor redis-py, and never write.
"""

from server.features.writer import FeatureWriter, Group, open_writer

__all__ = ["FeatureWriter", "Group", "open_writer"]
