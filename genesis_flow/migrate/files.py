"""Find the migration files: beside the package in a checkout, inside it when installed."""

import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from genesis_flow.migrate.base import BaseMigration

_NAME = re.compile(r"^(\d{14})_([a-z_]+)\.py$")
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class MigrationFile:
    version: str
    name: str
    path: Path

    def load(self) -> type[BaseMigration]:
        """The file's ``Migration`` class."""
        spec = importlib.util.spec_from_file_location(f"genesis_flow._migration_{self.version}", self.path)
        if spec is None or spec.loader is None:
            raise ImportError(f"Cannot load the migration {self.path}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        migration: type[BaseMigration] = module.Migration
        return migration


def folder() -> Path:
    installed = _PACKAGE / "_migrations"
    return installed if installed.is_dir() else _PACKAGE.parent / "migrations"


@functools.cache
def migration_files() -> tuple[MigrationFile, ...]:
    """The steps of the schema, oldest first."""
    found = [
        MigrationFile(match[1], match[2], path)
        for path in folder().iterdir()
        if (match := _NAME.match(path.name))
    ]
    if not found:
        raise FileNotFoundError(f"No migrations in {folder()}: the installation of genesis_flow is incomplete")
    return tuple(sorted(found, key=lambda file: file.version))
