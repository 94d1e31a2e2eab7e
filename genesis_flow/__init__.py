"""MLflow 3 on MongoDB."""
