"""Traces, spans and assessments."""
