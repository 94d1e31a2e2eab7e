"""What every area stands on: clients, deadlines, retries, errors, scoping, declared collections, keys."""
