"""One place of MLflow, and what takes its place. Loads nothing of ours that is large."""

import functools
import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from genesis_flow.compat import packages
from genesis_flow.compat.source import parameters_of, parameters_of_loaded

_logger = logging.getLogger("genesis_flow")

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Hook:
    """A function of MLflow, the parameters that it had when this was written, and what takes its place."""

    module: str
    name: str
    parameters: tuple[str, ...]
    feature: str
    replacement: Callable[[Any], Any]
    """Makes the function from MLflow's own; or changes a class and returns it."""
    may_lack: bool = False
    """Whether a version that is supported has no such module."""

    def why_not(self) -> str | None:
        """What there is against it, in the MLflow that is installed."""
        try:
            parameters = parameters_of_loaded(self.module, self.name) or parameters_of(self.module, self.name)
        except LookupError as error:
            return None if self.may_lack else str(error.args[0])
        return (
            None
            if parameters == self.parameters
            else f"{self.name} takes {', '.join(parameters) or 'nothing'}"
        )


@functools.cache
def fitting(hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
    """Of each feature all hooks, or none."""
    fit: list[Hook] = []
    for feature in dict.fromkeys(hook.feature for hook in hooks):
        of_feature = [hook for hook in hooks if hook.feature == feature]
        if against := next(filter(None, (hook.why_not() for hook in of_feature)), None):
            _logger.warning(
                "MLflow %s is not what genesis_flow was written for (%s), so %s are off: install MLflow %s.",
                packages.installed(),
                against,
                feature,
                packages.TESTED_IN_WORDS,
            )
        else:
            fit += of_feature
    return tuple(fit)


def put_in(hook: Hook) -> None:
    """Replace what is there; once."""
    *classes, name = hook.name.split(".")
    place = functools.reduce(getattr, classes, importlib.import_module(hook.module))
    original = getattr(place, name)
    if hasattr(original, "replaces"):  # applied before
        return
    replacement = hook.replacement(original)
    if replacement is not original:
        replacement = functools.wraps(original)(replacement)
    replacement.replaces = original
    setattr(place, name, replacement)
