"""Workspaces: what MLflow keeps of each, and what becomes of its things when it goes."""
