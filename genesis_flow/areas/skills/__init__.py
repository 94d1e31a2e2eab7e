"""Skills: a registry of skills and their versions. MLflow has it since 3.18."""
