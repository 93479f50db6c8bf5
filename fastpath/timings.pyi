TIMING_BOUNDS_NS: tuple[int, ...]
