"""The configuration file ``mlflow.conf``: found, parsed and checked."""

from __future__ import annotations

import configparser
import difflib
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from genesis_flow.core.errors import invalid
from genesis_flow.core.options import OPTIONS
from genesis_flow.core.options import as_boolean as as_boolean

FILE_NAME = "mlflow.conf"
CONF_VARIABLE = "GENESIS_FLOW_CONF"

KEYS: Mapping[str, tuple[str, ...]] = {
    section: tuple(option.name for option in OPTIONS if option.section == section)
    for section in ("tracking", "security", "plugins")
}
_BOOLEAN_KEYS = tuple(
    (option.section, option.name) for option in OPTIONS if option.section and option.kind == "boolean"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The values of one file; an absent file is an empty one."""

    path: Path | None = None
    values: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)

    def get(self, section: str, key: str) -> str | None:
        """The value, or None when it is absent or empty."""
        return self.values.get((section, key)) or None

    def source(self, section: str, key: str) -> str:
        """Where a value stands, for messages."""
        return f"{self.path or FILE_NAME} [{section}] {key}"


def locate(environ: Mapping[str, str], explicit: Path | None = None) -> Path | None:
    """The given file, else GENESIS_FLOW_CONF, ./mlflow.conf or ~/.config/genesis_flow/mlflow.conf."""
    named = explicit or environ.get(CONF_VARIABLE, "").strip()
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            origin = "given as configuration file" if explicit else f"named by {CONF_VARIABLE}"
            raise invalid(f"The file {str(path)!r} {origin} does not exist: create it or correct the name.")
        return path
    candidates = [Path(FILE_NAME)]
    if home := environ.get("HOME") or environ.get("USERPROFILE"):
        candidates.append(Path(home, ".config", "genesis_flow", FILE_NAME))
    return next((path for path in candidates if path.is_file()), None)


def load(path: Path | None) -> ConfigFile:
    """Read and check the file; unknown names are warned about, bad values refused."""
    config, notes = inspect(path)
    for note in notes:
        _warn_once(note)
    for section, key in _BOOLEAN_KEYS:
        if text := config.get(section, key):
            as_boolean(text, config.source(section, key))
    return config


def inspect(path: Path | None) -> tuple[ConfigFile, list[str]]:
    """The file, and what is to be said of names in it that are unknown."""
    if path is None:
        return ConfigFile(), []
    notes: list[str] = []
    config = ConfigFile(path, _read(path, notes))
    return config, notes


def _read(path: Path, notes: list[str]) -> dict[tuple[str, str], str]:
    # Values may hold '%', so no interpolation; and no section feeds its values to the others.
    parser = configparser.ConfigParser(interpolation=None, default_section="\0", delimiters="=")
    problem = ""
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file, source=str(path))
    except OSError as exc:
        raise invalid(f"The configuration file {str(path)!r} cannot be read ({exc.strerror}).") from exc
    except UnicodeDecodeError as exc:
        problem = f"is not UTF-8 text (byte {exc.start})"
    except configparser.DuplicateSectionError as exc:
        problem = f"has the section [{exc.section}] twice (line {exc.lineno})"
    except configparser.DuplicateOptionError as exc:
        problem = f"has the key {exc.option!r} twice in [{exc.section}] (line {exc.lineno})"
    except configparser.MissingSectionHeaderError as exc:
        problem = f"needs a section such as [tracking] before its first key (line {exc.lineno})"
    except configparser.ParsingError as exc:
        problem = f"has a line that is not 'key = value' (line {_line_number(exc)})"
    if problem:
        # Raised out here: chained, the parser's message would quote the line, which may hold a password.
        raise invalid(f"The configuration file {str(path)!r} {problem}: correct it there.")
    values = {}
    for section in parser.sections():
        for key, value in parser.items(section):
            if problem := _unknown(section, key):
                notes.append(f"{path}: {problem}")
            else:
                values[section, key] = value.strip()
    return values


def _line_number(exc: configparser.ParsingError) -> int:
    # Python 3.13 has a subclass that knows its one line, and no list.
    single: int | None = getattr(exc, "lineno", None)
    return single if single is not None else exc.errors[0][0]


def _unknown(section: str, key: str) -> str:
    """What to say of a key that has no meaning."""
    if section not in KEYS:
        return f"the section [{section}] is unknown and ignored.{closest(section, KEYS)}"
    if not re.fullmatch(r"\w+", key):
        # A password that a typing error made a key is not repeated.
        return f"in [{section}] a key that is not a name is ignored: correct or remove it."
    if key not in KEYS[section]:
        return f"the key {key!r} in [{section}] is unknown and ignored.{closest(key, KEYS[section])}"
    return ""


def closest(name: str, known: Collection[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f" Did you mean {matches[0]!r}?" if matches else ""


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    """Each store of a process reads the file; one warning is enough."""
    _log.warning(message)
