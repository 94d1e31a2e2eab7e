"""Looking at runs in a terminal, with nothing but mlflow-skinny."""
