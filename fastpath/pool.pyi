"""A per-thread pool allocator. Nothing of it is visible from Python."""
