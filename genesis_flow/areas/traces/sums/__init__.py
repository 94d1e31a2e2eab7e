"""Metrics over many traces, and the sums that answer them."""
