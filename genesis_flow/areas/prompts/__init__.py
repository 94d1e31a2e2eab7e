"""Prompts, which are registered models of another kind."""
