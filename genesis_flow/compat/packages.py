"""What is installed of MLflow. Loads nothing of it."""

from importlib.metadata import PackageNotFoundError, version


def is_whole() -> bool:
    """Whether all of MLflow is there: a client installs mlflow-skinny, which has no server packages."""
    try:
        version("mlflow")
    except PackageNotFoundError:
        return False
    return True
