"""One client per process and server, opened databases, deadlines, retries and the edge where errors change."""
