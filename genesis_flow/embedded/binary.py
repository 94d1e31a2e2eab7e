"""Where the mongod program is."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from genesis_flow.embedded.errors import EmbeddedUnavailable

VARIABLE = "GENESIS_FLOW_MONGOD"
_ADVICE = (
    "Install one with the extra `embedded`, `pip install -e '.[embedded]'` in the checkout (Linux, macOS), "
    f"or name one in {VARIABLE}, or use a server: mongodb://host:27017/mlflow."
)


def require_unix() -> None:
    """Refuse Windows, where only this package, and not its import, is impossible."""
    if sys.platform == "win32":
        raise EmbeddedUnavailable(
            "An embedded MongoDB needs Unix sockets and file locks, which Windows lacks. Use a server: "
            "mongodb://localhost:27017/mlflow."
        )


def find_mongod() -> Path:
    """The mongod to run: the one that GENESIS_FLOW_MONGOD names, the wheel's, or one on the PATH."""
    require_unix()
    if named := os.environ.get(VARIABLE):
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise EmbeddedUnavailable(f"{VARIABLE} names {named}, which is not a program. {_ADVICE}")
        return Path(named)
    if binary := _in_wheel() or _on_path():
        return binary
    raise EmbeddedUnavailable(f"There is no mongod for genesis:// to start. {_ADVICE}")


def _in_wheel() -> Path | None:
    """The package is a namespace; finding its folders imports nothing of it."""
    spec = importlib.util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        candidate = Path(folder, "db", "bin", "mongod")
        if candidate.is_file():
            return candidate
    return None


def _on_path() -> Path | None:
    found = shutil.which("mongod")
    return Path(found) if found else None
