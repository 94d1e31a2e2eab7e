"""Metrics of runs: heads, points, histories."""
