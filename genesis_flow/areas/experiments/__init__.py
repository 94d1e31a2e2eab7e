"""Experiments, which all areas know."""
