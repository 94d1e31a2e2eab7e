"""Webhooks of the registry."""
