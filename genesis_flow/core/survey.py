"""All settings at once, for people: each with its value and source, and all that is wrong with them.

It reads with the methods that stores read with, so it shows what they would use. Nothing is connected to,
and the command that prints a password is not run.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from genesis_flow.core import configfile, credentials, options
from genesis_flow.core.configfile import ConfigFile
from genesis_flow.core.options import OPTIONS, Option, Reading
from genesis_flow.core.redact import mask, mask_uri
from genesis_flow.core.settings import Resolution
from genesis_flow.core.uri import GenesisUri, MongoUri, parse

T = TypeVar("T")

_OURS = ("GENESIS_FLOW_", "GENESIS_MIGRATE_")
# Other programs have variables that begin so: of those only what is nearly one of ours is a typing error.
_SHARED = ("MLFLOW_", "MONGODB_", "AZURE_STORAGE_")
_NEARLY = 0.85
# In the place of a URI that cannot be read.
_NO_URI = MongoUri("mongodb", "", "", (), None, None, None)
_NOT_VALID = Reading(None, "not valid")
_OF_THE_DRIVER = ("write_concern", "journal", "retry_writes", "max_idle_time_ms")


@dataclass
class Survey:
    """What was found."""

    file: Path | None = None
    readings: list[tuple[Option, Reading]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def attempt(self, read: Callable[[], T]) -> T | None:
        from mlflow.exceptions import MlflowException

        try:
            return read()
        except MlflowException as error:
            if error.message not in self.problems:
                self.problems.append(error.message)
            return None


def survey(
    uri: str | None,
    environ: Mapping[str, str],
    known_elsewhere: Collection[str] = (),
) -> Survey:
    """Read all settings; ``known_elsewhere`` are variables of MLflow, which are none of ours misspelled."""
    found = Survey()
    found.file = found.attempt(lambda: configfile.locate(environ))
    conf, notes = found.attempt(lambda: configfile.inspect(found.file)) or (ConfigFile(), [])
    found.problems += notes
    values = _values(found, Resolution(environ, conf), uri)
    for option in OPTIONS:
        read = values.get(option.name) or partial(options.read, option, environ, conf)
        reading = found.attempt(read) or _NOT_VALID
        found.readings.append((option, reading))
    found.problems += _misspelled(environ, known_elsewhere)
    return found


def _values(found: Survey, resolution: Resolution, uri: str | None) -> dict[str, Callable[[], Reading]]:
    """How those options are read that are more than their text."""
    sources = resolution.sources
    text = resolution.uri(uri)
    parsed = found.attempt(lambda: parse(text, sources["store_uri"]))
    server = parsed if isinstance(parsed, MongoUri) else None

    def reads(key: str, read: Callable[[], Any]) -> Callable[[], Reading]:
        return lambda: Reading(read(), sources.get(key, "default"))

    values = {
        "uri": lambda: Reading(mask_uri(text), sources["store_uri"]) if parsed else _NOT_VALID,
        "default_artifact_root": reads(
            "artifact_root", lambda: mask(resolution.artifact_root(None, parsed or _NO_URI))
        ),
        "collection_prefix": reads("prefix", lambda: resolution.prefix(parsed or _NO_URI)),
        "max_pool_size": reads("max_pool_size", lambda: resolution.pool_size(server)),
        "server_selection_timeout": reads(
            "server_selection_timeout", lambda: resolution.selection_ms(server)
        ),
        "timeout": reads("timeout", lambda: resolution.timeout(server)),
        "open_timeout": reads("open_timeout", resolution.open_timeout),
    }
    if isinstance(parsed, GenesisUri):
        unused = lambda: Reading(None, "not for genesis://")  # noqa: E731 - one line for all of them
        return values | dict.fromkeys(("username", "password_file", "profile", *_OF_THE_DRIVER), unused)
    return values | _values_of_a_server(found, resolution, parsed or _NO_URI)


def _values_of_a_server(
    found: Survey, resolution: Resolution, parsed: MongoUri
) -> dict[str, Callable[[], Reading]]:
    sources = resolution.sources
    portable = found.attempt(lambda: resolution.portable(parsed))
    driver = found.attempt(lambda: resolution.durability(parsed, bool(portable))) or {}
    login = found.attempt(lambda: _login(resolution, parsed)) or (None, None)

    def known(key: str, value: Any) -> Callable[[], Reading]:
        return lambda: Reading(value, sources.get(key, "default"))

    profile = None if portable is None else "portable" if portable else "full"
    return {
        "username": known("username", login[0]),
        "password_file": known("password", login[1]),
        "profile": known("portable", profile),
        **{name: known(name, driver.get(name)) for name in _OF_THE_DRIVER},
    }


def _login(resolution: Resolution, parsed: MongoUri) -> tuple[str | None, Any]:
    environ, by_command = resolution.environ, False
    if not (environ.get(credentials.PASSWORD) or environ.get(credentials.PASSWORD_FILE)):
        by_command = bool(environ.get(credentials.PASSWORD_COMMAND))
    if by_command:
        environ = {**environ, credentials.PASSWORD: "asked for when a store connects"}
    origin = resolution.sources["store_uri"]
    login = credentials.resolve(parsed, environ, resolution.conf, resolution.sources, origin)
    if by_command and resolution.sources.get("password", "").endswith(credentials.PASSWORD):
        resolution.sources["password"] = f"environment {credentials.PASSWORD_COMMAND}"
    return login


def _misspelled(environ: Mapping[str, str], known_elsewhere: Collection[str]) -> Iterator[str]:
    ours = {variable for option in OPTIONS for variable in option.variables}
    for name in sorted({*environ} - ours - {*known_elsewhere}):
        if name.startswith(_OURS):
            nearest = configfile.closest(name, [each for each in ours if each.startswith(_OURS)])
        elif name.startswith(_SHARED) and difflib.get_close_matches(name, ours, n=1, cutoff=_NEARLY):
            nearest = configfile.closest(name, ours)
        else:
            continue
        yield f"The environment variable {name} is unknown and ignored.{nearest}"
