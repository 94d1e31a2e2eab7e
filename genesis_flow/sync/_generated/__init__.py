"""Written by tools/gen_sync.py: the blocking twins of the areas."""
