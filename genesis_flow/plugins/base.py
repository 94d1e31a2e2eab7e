"""What a plugin is made of. Loads neither MLflow nor a framework."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

ENTRY_POINT_GROUPS = ("genesis_flow.plugins", "mlflow.plugins")
"""Where packages name their plugins; the second is the name that earlier documents gave."""

Functions = Mapping[str, Callable[..., Any]]

MAX_VERSION = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PluginType(StrEnum):
    """What a plugin adds."""

    FRAMEWORK = "framework"


class PluginState(StrEnum):
    """Whether a plugin is in use, may be, or cannot be."""

    ENABLED = "enabled"
    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class PluginMetadata:
    """What a plugin says of itself. What could not be compared or shown is refused when it is said."""

    name: str
    version: str
    description: str = ""
    author: str = ""
    plugin_type: PluginType = PluginType.FRAMEWORK
    dependencies: tuple[str, ...] | list[str] = ()
    """Requirements as in a pyproject.toml: without them the plugin is unavailable."""
    optional_dependencies: tuple[str, ...] | list[str] = ()
    """Requirements that only add something."""
    min_genesis_flow_version: str | None = None

    def __post_init__(self) -> None:
        for field in ("name", "version", "description", "author"):
            _check_text(field, getattr(self, field))
        if not is_name(self.name):
            raise ValueError(
                f"name must be at most 100 letters, digits, '.', '_' and '-', not {self.name[:100]!r}"
            )
        _check_version("version", self.version)
        if self.min_genesis_flow_version is not None:
            _check_text("min_genesis_flow_version", self.min_genesis_flow_version)
            _check_version("min_genesis_flow_version", self.min_genesis_flow_version)
        object.__setattr__(self, "plugin_type", PluginType(self.plugin_type))
        for field in ("dependencies", "optional_dependencies"):
            object.__setattr__(self, field, _requirements(field, getattr(self, field)))


class FrameworkPlugin(ABC):
    """A framework for MLflow: how its models are saved and loaded, and how it logs by itself.

    It is made without arguments, once in a process, and only when it is enabled; so neither its module nor
    its ``__init__`` should import the framework.
    """

    def __init__(self, metadata: PluginMetadata) -> None:
        self._metadata = metadata

    @property
    def metadata(self) -> PluginMetadata:
        return self._metadata

    @abstractmethod
    def get_module_path(self) -> str:
        """The dotted name of the module that has the functions. The manager does not import it."""

    def get_autolog_functions(self) -> Functions:
        """Functions that switch on logging by the framework itself."""
        return {}

    def get_save_functions(self) -> Functions:
        """Functions that save or log a model."""
        return {}

    def get_load_functions(self) -> Functions:
        """Functions that load a model."""
        return {}

    def functions(self) -> dict[str, Callable[..., Any]]:
        """All functions by their names."""
        return {**self.get_autolog_functions(), **self.get_save_functions(), **self.get_load_functions()}

    def on_enable(self) -> None:  # noqa: B027 - nothing is a good answer
        """Called when the plugin is enabled; an error here refuses it."""

    def on_disable(self) -> None:  # noqa: B027 - as above
        """Called when the plugin is disabled; an error here is logged, and does not keep it enabled."""


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _check_text(field: str, value: object) -> None:
    # A subclass of str could show itself otherwise than it compares.
    if type(value) is not str:
        raise ValueError(f"{field} must be a text, not {type(value).__name__}")


def _check_version(field: str, text: str) -> None:
    from packaging.version import InvalidVersion, Version

    try:
        if len(text) > MAX_VERSION:
            raise InvalidVersion(f"longer than {MAX_VERSION} characters")
        Version(text)
    except InvalidVersion as error:
        raise ValueError(f"{field} must be a version such as 1.0.2, not {text[:100]!r}") from error


def _requirements(field: str, given: object) -> tuple[str, ...]:
    from packaging.requirements import InvalidRequirement, Requirement

    if not isinstance(given, list | tuple):
        raise ValueError(f"{field} must be a list of requirements, not {type(given).__name__}")
    for each in given:
        _check_text(f"each of {field}", each)
        try:
            Requirement(each)
        except InvalidRequirement as error:
            raise ValueError(f"{field}: {each[:100]!r} is no requirement such as 'numpy>=2'") from error
    return tuple(given)
