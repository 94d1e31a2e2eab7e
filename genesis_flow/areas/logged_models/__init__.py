"""Logged models and their metrics."""
