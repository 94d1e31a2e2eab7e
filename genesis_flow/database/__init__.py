"""One client per process and server, opened databases, deadlines, retries, the edge where errors change."""
