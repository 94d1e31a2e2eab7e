"""The tracking store, by area: plain async code that speaks MLflow."""
