"""Loading a plugin: first in a process of its own, which can be ended, and then here.

A thread that hangs in an import cannot be ended, and holds the lock of that import for good. A process can.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from genesis_flow.core.redact import mask
from genesis_flow.plugins.base import FrameworkPlugin, PluginMetadata
from genesis_flow.plugins.discovery import Target

# A plugin that enables itself while it is imported must not begin a trial in the trial.
_IN_TRIAL = "_GENESIS_FLOW_PLUGIN_TRIAL"
_MAX_CHARACTERS = 500

_PROGRAM = """
import json, sys
given = json.loads(sys.argv[1])
sys.path[:] = given["path"]
from genesis_flow.plugins.trial import main
main(given)
"""


def load(target: Target) -> FrameworkPlugin:
    """Import the module and make the plugin. Raises whatever the plugin raises."""
    if target.folder is not None and str(target.folder) not in sys.path:
        sys.path.append(str(target.folder))
    found: Any = import_module(target.module)
    for name in target.attribute.split("."):
        found = getattr(found, name)
    return checked(found)


def checked(given: Any) -> FrameworkPlugin:
    """The plugin that a class or a function makes, or that is one."""
    plugin = given if isinstance(given, FrameworkPlugin) else given()
    if not isinstance(plugin, FrameworkPlugin):
        raise TypeError(f"it is no FrameworkPlugin but a {type(plugin).__name__}")
    metadata_of(plugin)
    return plugin


def metadata_of(plugin: FrameworkPlugin) -> PluginMetadata:
    """What a plugin says of itself, checked again: it may have been made without being checked."""
    said = plugin.metadata
    if type(said) is not PluginMetadata:
        raise TypeError(f"its metadata are no PluginMetadata but a {type(said).__name__}")
    return dataclasses.replace(said)


def sentence(error: BaseException) -> str:
    """An error of a plugin, in one line without passwords."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the plugin's own error, which may be of any class
        text = "its message cannot be shown"
    text = _shortened(" ".join(f"{type(error).__name__}: {text}".split()), 4 * _MAX_CHARACTERS)
    return _shortened(mask(text), _MAX_CHARACTERS)


def _shortened(text: str, most: int) -> str:
    """Cut, but not inside a URI: half of one would show what is masked in a whole one."""
    if len(text) <= most:
        return text
    kept, _, last = text[:most].rpartition(" ")
    return f"{kept if '://' in last else text[:most]} …"


def why_not(target: Target, seconds: float) -> str | None:
    """Load a plugin in a process of its own: why that failed, or None. It is ended after ``seconds``."""
    if seconds == 0 or target.module in sys.modules or os.environ.get(_IN_TRIAL) or not sys.executable:
        return None
    with tempfile.TemporaryDirectory(prefix="genesis-flow-plugin-") as scratch:
        outcome = Path(scratch, "outcome")
        given = {
            "path": sys.path,
            "module": target.module,
            "attribute": target.attribute,
            "folder": str(target.folder) if target.folder else None,
            "outcome": str(outcome),
        }
        code = _ended(
            subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(given)],
                env={**os.environ, _IN_TRIAL: "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what it starts itself is ended with it
            ),
            seconds,
        )
        if code is None:
            return f"its import did not end within {seconds:g} s"
        if outcome.exists():
            return outcome.read_text(encoding="utf-8") or None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its import ended the process in which it was tried ({how})"


def _ended(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its exit code, or None if it had to be ended."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:  # also where the user has no patience
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(given: dict[str, Any]) -> None:
    """The process of a trial: writes why the plugin cannot be loaded, nothing if it can, and ends at once."""
    folder = given["folder"]
    try:
        load(Target(given["module"], given["attribute"], Path(folder) if folder else None))
        said = ""
    except BaseException as error:  # noqa: BLE001 - it is told to the process that waits
        said = sentence(error)
    Path(given["outcome"]).write_text(said, encoding="utf-8")
    os._exit(0)  # threads that the plugin has begun are not waited for
