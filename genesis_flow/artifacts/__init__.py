"""Artifacts on Azure Blob Storage: ``azure://`` URIs."""
