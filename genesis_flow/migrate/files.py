"""Find the migration files: beside the package in a checkout, inside it when installed."""

import functools
import hashlib
import importlib.util
import io
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from genesis_flow.migrate.base import BaseMigration
from genesis_flow.migrate.errors import MigrationError

_NAME = re.compile(r"^(\d{14})_([a-z_]+)\.py$")
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class MigrationFile:
    version: str
    name: str
    path: Path

    @property
    def label(self) -> str:
        return f"{self.version}_{self.name}"

    def load(self) -> type[BaseMigration]:
        """The file's ``Migration`` class."""
        spec = importlib.util.spec_from_file_location(f"genesis_flow._migration_{self.version}", self.path)
        if spec is None or spec.loader is None:
            raise MigrationError(f"The migration {self.path} cannot be loaded as Python: check the file.")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as exc:
            raise MigrationError(
                f"The migration {self.path} cannot be imported ({type(exc).__name__}: {exc}): correct it."
            ) from exc
        migration = getattr(module, "Migration", None)
        if not isinstance(migration, type) or not issubclass(migration, BaseMigration):
            raise MigrationError(
                f"The migration {self.path} needs a class Migration(BaseMigration), with BaseMigration "
                "imported from genesis_flow.migrate.base."
            )
        return migration

    def checksum(self) -> str:
        """SHA-256 of the code: comments, blank lines, line ends and trailing blanks do not count.

        Only the places of comments come from the tokenizer, so the sum is the same in every Python.
        """
        lines = self.path.read_text(encoding="utf-8").splitlines()
        for row, column in self._comments(lines):
            lines[row - 1] = lines[row - 1][:column]
        code = [stripped for line in lines if (stripped := line.rstrip())]
        return hashlib.sha256("\n".join(code).encode()).hexdigest()

    def _comments(self, lines: list[str]) -> list[tuple[int, int]]:
        """Where comments begin, as row and column."""
        text = "\n".join(lines) + "\n"
        if "#" not in text:  # the tokenizer was a quarter of a client's own work for an empty database
            return []
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        except (tokenize.TokenError, SyntaxError) as exc:
            raise MigrationError(f"The migration {self.path} is not valid Python: {exc}.") from exc
        return [token.start for token in tokens if token.type == tokenize.COMMENT]


INSTALLED = _PACKAGE / "_migrations"


def folder() -> Path:
    return INSTALLED if INSTALLED.is_dir() else _PACKAGE.parent / "migrations"


def read_folder(path: Path) -> tuple[MigrationFile, ...]:
    """The steps in a folder, oldest first."""
    if not path.is_dir():
        raise MigrationError(f"The migrations folder {path} does not exist: correct script_location.")
    files = [
        MigrationFile(match[1], match[2], file)
        for file in path.iterdir()
        if (match := _NAME.match(file.name))
    ]
    return tuple(sorted(files, key=lambda file: (file.version, file.name)))


def misnamed(path: Path) -> list[str]:
    """Complaints about names in a folder that would make a step be left out or run in no certain order."""
    complaints = [
        f"{file.name} is not named YYYYMMDDHHMMSS_what.py with a-z and _ only, so it is not a step: rename it"
        for file in sorted(path.glob("*.py"))
        if not _NAME.match(file.name) and not file.name.startswith("_")
    ]
    by_version: dict[str, list[str]] = {}
    for step in read_folder(path):
        by_version.setdefault(step.version, []).append(step.path.name)
    return complaints + [
        f"{' and '.join(names)} have the same version: give one of them a later time"
        for names in by_version.values()
        if len(names) > 1
    ]


def replacements(files: Iterable[MigrationFile]) -> dict[str, tuple[str, ...]]:
    """The steps that stand in place of others, with the versions of those."""
    return {file.version: replaced for file in files if (replaced := file.load().replaces)}


@functools.cache
def migration_files() -> tuple[MigrationFile, ...]:
    """The steps of the schema that this version of genesis_flow works with, oldest first."""
    files = read_folder(folder())
    if not files:
        raise FileNotFoundError(
            f"No migrations in {folder()}: the installation of genesis_flow is incomplete"
        )
    return files
