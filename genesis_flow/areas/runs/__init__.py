"""Runs with their params, tags and inputs, and their search."""
