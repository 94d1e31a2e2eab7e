"""Traces and spans as they arrive."""
