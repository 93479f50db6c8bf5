"""An epoll and its waits, to the nanosecond. Nothing of it is visible from Python."""
