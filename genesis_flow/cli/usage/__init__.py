"""What is in a database: by experiment, user and day, and on disk. Nothing is written there."""
