"""Where to migrate and how: the command line, the environment and ``alembic_like.ini``."""

import configparser
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymongo
from mlflow.exceptions import MlflowException
from pymongo import ReadPreference
from pymongo.database import Database
from pymongo.errors import PyMongoError

from genesis_flow import embedded
from genesis_flow.core.reaching import Search
from genesis_flow.core.settings import ENV_COSMOS_URI, ENV_TRACKING_URI, ENV_URI, Embedded, Settings
from genesis_flow.core.uri import SCHEMES, scheme_of
from genesis_flow.migrate.batches import BATCH_SIZE, Report, silent
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.migrate.files import folder
from genesis_flow.migrate.imports import Imports, read_imports
from genesis_flow.migrate.rights import explain

INI_NAME = "alembic_like.ini"
INI_VARIABLE = "GENESIS_MIGRATE_CONFIG"
SECTION = "genesis-migrate"
KEYS = ("uri", "script_location", "metastore", "lock_lease", "lock_wait", "batch_size")

LOCK_LEASE = 30.0
LOCK_WAIT = 300.0
_SHORTEST_LEASE = 0.5


@dataclass(frozen=True, slots=True)
class MigrateConfig:
    """Everything a command needs; safe to print."""

    settings: Settings
    script_location: Path
    metastore: str | None = None
    lock_lease: float = LOCK_LEASE
    lock_wait: float = LOCK_WAIT
    batch_size: int = BATCH_SIZE
    imports: Imports = field(default_factory=Imports)
    ini: Path | None = None
    report: Report = silent

    @property
    def where(self) -> str:
        """The database for messages, without its password."""
        return self.settings.store_uri


def load_config(
    uri: str | None = None,
    ini: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    needs_database: bool = True,
    report: Report = silent,
) -> MigrateConfig:
    """Resolve the target from ``uri``, then the environment, then the ini, then ``mlflow.conf``.

    Else the embedded database in ./genesis-data, as for every other command; but where nobody named one it
    has to be there, unless only files are read (``needs_database=False``).
    """
    environ = os.environ if environ is None else environ
    path, values, imports = read_ini(ini, environ)
    origin = str(path or INI_NAME)
    location = values.get("script_location")
    return MigrateConfig(
        settings=_settings(uri, values.get("uri"), environ, origin, needs_database),
        script_location=_relative_to(path, location) if location else folder(),
        metastore=values.get("metastore"),
        lock_lease=_number(values, "lock_lease", LOCK_LEASE, _SHORTEST_LEASE, origin),
        lock_wait=_number(values, "lock_wait", LOCK_WAIT, 0.0, origin),
        batch_size=int(_number(values, "batch_size", BATCH_SIZE, 1.0, origin)),
        imports=imports,
        ini=path,
        report=report,
    )


def _settings(
    uri: str | None, in_ini: str | None, environ: Mapping[str, str], origin: str, needs_database: bool
) -> Settings:
    try:
        if uri or _names_target(environ) or not in_ini:
            settings = Settings.resolve(uri, environ=environ)
        else:
            settings = Settings.resolve(in_ini, environ=environ)
    except MlflowException as exc:
        raise MigrationError(exc.message) from exc
    unnamed = needs_database and settings.sources["store_uri"] == "default"
    if unnamed and (absent := _absent(settings)) is not None:
        raise MigrationError(
            f"No database is named, and there is none in {absent}: give --uri mongodb://host/database or "
            f"--uri genesis:///directory, set {ENV_TRACKING_URI} or {ENV_URI}, or write uri in {origin} or "
            "in [tracking] of mlflow.conf."
        )
    return settings


def _absent(settings: Settings) -> Path | None:
    """The directory of an embedded database that is not there."""
    if not isinstance(settings.target, Embedded) or (settings.target.directory / "db").is_dir():
        return None
    return settings.target.directory


def _names_target(environ: Mapping[str, str]) -> bool:
    if scheme_of(environ.get(ENV_TRACKING_URI, "").strip()) in SCHEMES:
        return True
    return any(environ.get(name, "").strip() for name in (ENV_URI, ENV_COSMOS_URI))


def read_ini(
    explicit: Path | None, environ: Mapping[str, str]
) -> tuple[Path | None, dict[str, str], Imports]:
    """The checked values of the given file, the one that the environment names, or ./alembic_like.ini."""
    named = explicit or (Path(value) if (value := environ.get(INI_VARIABLE, "").strip()) else None)
    path = named or Path(INI_NAME)
    if not path.is_file():
        if named:
            raise MigrationError(
                f"The configuration file {path} does not exist: create it or correct its name."
            )
        return None, {}, Imports()
    # Passwords may hold '%', so no interpolation.
    parser = configparser.ConfigParser(interpolation=None, default_section="\0", delimiters="=")
    problem = ""
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except (configparser.Error, UnicodeDecodeError) as exc:
        problem = type(exc).__name__
    except OSError as exc:
        raise MigrationError(f"The configuration file {path} cannot be read ({exc.strerror}).") from exc
    if problem:
        # Raised out here: chained, the parser's message would quote the line, which may hold a password.
        raise MigrationError(
            f"The configuration file {path} is not a valid ini file ({problem}): correct it."
        )
    for section in parser.sections():
        if section not in (SECTION, "imports"):
            raise MigrationError(
                f"{path} has the unknown section [{section}]: use [{SECTION}] and [imports]."
            )
    values = dict(parser.items(SECTION)) if parser.has_section(SECTION) else {}
    for key in values:
        if key not in KEYS:
            raise MigrationError(f"{path} [{SECTION}] has the unknown key {key!r}: use {', '.join(KEYS)}.")
    imports = dict(parser.items("imports")) if parser.has_section("imports") else {}
    return path, {key: text for key, text in values.items() if text.strip()}, read_imports(imports, str(path))


def _relative_to(ini: Path | None, location: str) -> Path:
    base = ini.resolve().parent if ini else Path.cwd()
    return (base / Path(location).expanduser()).resolve()


def _number(values: Mapping[str, str], key: str, default: float, least: float, origin: str) -> float:
    text = values.get(key)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= 86_400 * 7:
        raise MigrationError(
            f"{origin} [{SECTION}] {key} must be a number of at least {least:g}, not {text!r}."
        )
    return number


class Target:
    """Opened clients: one for the steps, one that stays open for the lock when the first is closed."""

    def __init__(self, config: MigrateConfig, uri: str, options: dict[str, Any]) -> None:
        self.config = config
        # All that another process needs to connect as this one does; the URI may hold a password.
        self.uri, self.options = uri, options
        self._clients: list[pymongo.MongoClient[dict[str, Any]]] = []
        self.db = self.database()

    def database(self) -> Database[dict[str, Any]]:
        """The database on a client of its own; always the primary, whose clock the lock goes by."""
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(self.uri, **self.options)
        self._clients.append(client)
        return client.get_database(self.config.settings.database, read_preference=ReadPreference.PRIMARY)

    def close(self) -> None:
        for client in self._clients:
            client.close()


def _reach(target: "Target") -> None:
    """Wait for the server, and say so, before a command does anything."""
    client, search = target.db.client, Search(target.config.settings)
    while True:
        try:
            with pymongo.timeout(search.step()):
                client.admin.command("hello")
                return
        except PyMongoError as error:
            servers = client.topology_description.server_descriptions().values()
            if not error.timeout or not search.go_on(error, servers):
                raise


@contextlib.contextmanager
def opened(config: MigrateConfig, *, creates: bool = True) -> Iterator[Target]:
    """Connect for one command; an embedded server is started, or joined, for as long.

    A command that only looks at a database, or changes what is there, does not make one (``creates``).
    """
    settings = config.settings
    if not creates and (absent := _absent(settings)) is not None:
        raise MigrationError(
            f"There is no embedded database in {absent}: name the right one with --uri; `genesis-migrate up` "
            "or a store's first call makes one."
        )
    with contextlib.ExitStack() as stack:
        embedded_uri = None
        if isinstance(settings.target, Embedded):
            server = embedded.acquire(settings.target.directory, timeout=settings.open_timeout)
            stack.callback(server.release)
            embedded_uri = server.uri
        target = Target(config, *settings.client_options(embedded_uri, patient=True))
        stack.callback(target.close)
        try:
            _reach(target)
            yield target
        except PyMongoError as exc:
            raise MigrationError(explain(exc, target.db.name, config.where)) from exc
