"""The environment variables that MLflow reads itself."""

import mlflow.environment_variables as theirs


def mlflows_variables() -> set[str]:
    """Their names, as far as MLflow lists them."""
    named = (getattr(each, "name", None) for each in vars(theirs).values())
    return {name for name in named if isinstance(name, str) and name.isupper()}
