"""The configuration file ``mlflow.conf``: found, parsed and checked."""

from __future__ import annotations

import configparser
import difflib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import mask

FILE_NAME = "mlflow.conf"
CONF_VARIABLE = "GENESIS_FLOW_CONF"

TRACKING_KEYS = (
    "uri",
    "default_artifact_root",
    "collection_prefix",
    "max_pool_size",
    "server_selection_timeout",
    "timeout",
    "open_timeout",
    "profile",
    "username",
    "password_file",
)
SECURITY_KEYS = ("audit", "enable_input_validation", "enable_secure_model_loading", "max_param_value_length")
PLUGINS_KEYS = ("auto_discover", "enable_builtin", "plugin_paths")
KEYS: Mapping[str, tuple[str, ...]] = {
    "tracking": TRACKING_KEYS,
    "security": SECURITY_KEYS,
    "plugins": PLUGINS_KEYS,
}
_BOOLEAN_KEYS = (
    ("security", "audit"),
    ("security", "enable_input_validation"),
    ("security", "enable_secure_model_loading"),
    ("plugins", "auto_discover"),
    ("plugins", "enable_builtin"),
)

# What a reader of the file would expect to happen, and does not: said once, so that nobody relies on it.
_WITHOUT_EFFECT: Mapping[tuple[str, str, bool], str] = {
    ("security", "enable_input_validation", False): "input is always validated, as MLflow does",
    ("security", "enable_secure_model_loading", True): (
        "genesis_flow does not load models; MLflow's own switch is MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false"
    ),
    ("plugins", "auto_discover", False): "MLflow itself discovers plugins by their entry points",
}

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
    if path is None:
        return ConfigFile()
    config = ConfigFile(path, _read(path))
    for section, key in _BOOLEAN_KEYS:
        _check_boolean(config, section, key)
    if paths := config.get("plugins", "plugin_paths"):
        _warn_once(
            f"{config.source('plugins', 'plugin_paths')} has no effect: put {paths!r} on PYTHONPATH, "
            "or install the plugin; MLflow finds plugins by their entry points."
        )
    return config


def _read(path: Path) -> dict[tuple[str, str], str]:
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
            if _is_known(path, section, key):
                values[section, key] = value.strip()
    return values


def _line_number(exc: configparser.ParsingError) -> int:
    # Python 3.13 has a subclass that knows its one line, and no list.
    single: int | None = getattr(exc, "lineno", None)
    return single if single is not None else exc.errors[0][0]


def _is_known(path: Path, section: str, key: str) -> bool:
    if section not in KEYS:
        _warn_once(f"{path}: the section [{section}] is unknown and ignored.{_closest(section, KEYS)}")
        return False
    if not re.fullmatch(r"\w+", key):
        # A password that a typing error made a key is not repeated.
        _warn_once(f"{path}: in [{section}] a key that is not a name is ignored: correct or remove it.")
        return False
    if key not in KEYS[section]:
        _warn_once(
            f"{path}: the key {key!r} in [{section}] is unknown and ignored.{_closest(key, KEYS[section])}"
        )
        return False
    return True


def _closest(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def _check_boolean(config: ConfigFile, section: str, key: str) -> None:
    text = config.get(section, key)
    if text is None:
        return
    value = as_boolean(text, config.source(section, key))
    if reason := _WITHOUT_EFFECT.get((section, key, value)):
        _warn_once(f"{config.source(section, key)} = {text} has no effect: {reason}.")


def as_boolean(text: str, source: str) -> bool:
    """``true``, ``false`` and their usual synonyms."""
    value = configparser.ConfigParser.BOOLEAN_STATES.get(text.lower())
    if value is None:
        raise invalid(f"{source} must be true or false, not {mask(text)!r}.")
    return value


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    """Each store of a process reads the file; one warning is enough."""
    _log.warning(message)
