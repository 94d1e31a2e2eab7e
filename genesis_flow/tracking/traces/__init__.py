"""Traces, spans and assessments, by area."""
