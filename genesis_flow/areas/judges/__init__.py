"""Judges, which MLflow calls scorers: their versions, and which traces they score by themselves."""
