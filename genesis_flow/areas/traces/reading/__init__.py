"""Traces as they are read and searched."""
