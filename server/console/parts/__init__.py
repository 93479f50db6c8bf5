"""The parts of the page: each makes a tree of what its reader returned, and decides nothing."""
