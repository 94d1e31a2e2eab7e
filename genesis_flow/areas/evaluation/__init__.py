"""Evaluation datasets, their records, and what belongs to what."""
