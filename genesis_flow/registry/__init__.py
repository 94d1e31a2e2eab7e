"""The model registry: one file an area, one class an area."""
