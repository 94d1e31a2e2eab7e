"""The MLflow that is installed, and those that were tested. Loads nothing of MLflow."""

import re
from importlib.metadata import PackageNotFoundError, version

# Those on which all tests run; .ci/run has them too.
TESTED = ("3.17.2", "3.18.0")
TESTED_IN_WORDS = " and ".join(TESTED)


def is_whole() -> bool:
    """Whether all of MLflow is there: a client installs mlflow-skinny, which has no server packages."""
    return _version_of("mlflow") is not None


def installed() -> str | None:
    """The version of MLflow, or None where it is not there as a package."""
    return _version_of("mlflow") or _version_of("mlflow-skinny")


def is_tested(mlflow: str | None) -> bool:
    return mlflow in TESTED


def is_newer_than_tested(mlflow: str) -> bool:
    """Whether rules and names may have changed since. A release that only mends is none of these."""
    return release(mlflow) > max(map(release, TESTED))


def release(mlflow: str) -> tuple[int, ...]:
    """The first two numbers; pre-releases have the rules of what they precede."""
    return tuple(map(int, re.findall(r"\d+", mlflow)[:2]))


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
