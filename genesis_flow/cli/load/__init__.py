"""A bounded load test of a store: real processes, a table and a plot, nothing left behind."""
