"""What MLflow finds through entry points."""
