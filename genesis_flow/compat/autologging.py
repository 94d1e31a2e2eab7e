"""What MLflow's autologging of a framework is set to, and setting it back."""

import inspect
import sys
from importlib import import_module
from typing import Any

_SETTINGS = "mlflow.utils.autologging_utils"


def settings_of(flavor: str) -> dict[str, Any] | None:
    """The arguments of the last call of ``mlflow.<flavor>.autolog``; None where it is off."""
    loaded = sys.modules.get(_SETTINGS)
    if loaded is None:
        return None
    given = loaded.AUTOLOGGING_INTEGRATIONS.get(flavor)
    return None if not given or given.get("disable", True) else dict(given)


def set_back(flavor: str, before: dict[str, Any] | None) -> None:
    """What ``settings_of`` said before holds again."""
    if settings_of(flavor) == before:
        return
    autolog = import_module(f"mlflow.{flavor}").autolog
    if before is None:
        autolog(disable=True, silent=True)
        return
    # What is noted beside them, as by mlflow.autolog(), is no argument.
    known = inspect.signature(autolog).parameters
    autolog(**{name: value for name, value in before.items() if name in known})
    sys.modules[_SETTINGS].AUTOLOGGING_INTEGRATIONS[flavor] = dict(before)
