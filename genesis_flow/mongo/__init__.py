"""The ground of every area: clients, deadlines, retries, errors, scoping, declared collections, keys."""
