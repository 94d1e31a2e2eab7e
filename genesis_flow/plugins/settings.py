"""The section ``[plugins]`` of mlflow.conf, and the variables that come before it."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genesis_flow.core import configfile
from genesis_flow.core.errors import invalid

ENV_PATHS = "GENESIS_FLOW_PLUGIN_PATHS"
ENV_TIMEOUT = "GENESIS_FLOW_PLUGIN_TIMEOUT"

DEFAULT_IMPORT_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """Which plugins are looked for, and how long one may take to be imported."""

    auto_discover: bool = True
    enable_builtin: bool = True
    plugin_paths: tuple[Path, ...] = ()
    import_timeout: float = DEFAULT_IMPORT_TIMEOUT
    """Seconds of the process in which a plugin is tried out; 0 for none."""

    @staticmethod
    def resolve(environ: Mapping[str, str] | None = None) -> "PluginSettings":
        """What the environment says, else the file, else the defaults."""
        environ = os.environ if environ is None else environ
        conf = configfile.load(configfile.locate(environ))

        def switch(key: str) -> bool:
            text = conf.get("plugins", key)
            return True if text is None else configfile.as_boolean(text, conf.source("plugins", key))

        return PluginSettings(
            auto_discover=switch("auto_discover"),
            enable_builtin=switch("enable_builtin"),
            plugin_paths=_paths(environ, conf),
            import_timeout=_timeout(environ, conf),
        )


def _paths(environ: Mapping[str, str], conf: configfile.ConfigFile) -> tuple[Path, ...]:
    """Folders, separated as in PATH or by lines; one that is relative lies beside the file that names it."""
    text, beside = environ.get(ENV_PATHS, "").strip(), Path.cwd()
    if not text:
        text = conf.get("plugins", "plugin_paths") or ""
        beside = conf.path.absolute().parent if conf.path else beside
    given = (each.strip() for each in re.split(rf"[\n{re.escape(os.pathsep)}]", text))
    return tuple(dict.fromkeys(beside / Path(each).expanduser() for each in given if each))


def _timeout(environ: Mapping[str, str], conf: configfile.ConfigFile) -> float:
    text, source = environ.get(ENV_TIMEOUT, "").strip(), ENV_TIMEOUT
    if not text:
        text, source = conf.get("plugins", "import_timeout") or "", conf.source("plugins", "import_timeout")
    if not text:
        return DEFAULT_IMPORT_TIMEOUT
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise invalid(f"{source} must be a number of seconds, or 0 to import plugins untried, not {text!r}.")
    return value
