"""One frozen object with every setting, resolved from the URI, the environment and ``mlflow.conf``."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from genesis_flow.core import configfile, credentials
from genesis_flow.core.configfile import ConfigFile, as_boolean
from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import Secret, mask, mask_uri
from genesis_flow.core.uri import (
    EMBEDDED_DATABASE,
    SCHEMES,
    GenesisUri,
    MongoUri,
    normalize_prefix,
    parse,
    scheme_of,
)

ENV_TRACKING_URI = "MLFLOW_TRACKING_URI"
ENV_URI = "GENESIS_FLOW_MONGODB_URI"
ENV_COSMOS_URI = "GENESIS_FLOW_COSMOS_DB_URI"
ENV_ARTIFACT_ROOT = "GENESIS_FLOW_ARTIFACT_ROOT"
ENV_SERVER_ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
ENV_PREFIX = "MONGODB_COLLECTION_PREFIX"
ENV_POOL = "MONGODB_MAX_POOL_SIZE"
ENV_SELECTION = "MONGODB_SERVER_SELECTION_TIMEOUT"
ENV_TIMEOUT = "GENESIS_FLOW_TIMEOUT"
ENV_PROFILE = "GENESIS_FLOW_PROFILE"
ENV_OPEN_TIMEOUT = "GENESIS_FLOW_OPEN_TIMEOUT"
ENV_AUDIT = "GENESIS_FLOW_AUDIT"

DEFAULT_POOL_SIZE = 64
DEFAULT_SELECTION_MS = 30_000
DEFAULT_TIMEOUT = 60.0
# The driver's own, 20 and 10 s, let a dead server pass for a busy one for 30 s.
WATCHING = {"connectTimeoutMS": 8000, "heartbeatFrequencyMS": 5000}
DEFAULT_OPEN_TIMEOUT = 30.0
DEFAULT_ARTIFACT_ROOT = "./mlruns"
COSMOS_MAX_IDLE_MS = 120_000
MAX_PARAM_VALUE_LENGTH = 6000
APP_NAME = "genesis_flow"
PROFILES = ("full", "portable")

T = TypeVar("T")

# Options of the URI that Settings holds itself and hands to the client as arguments.
_OWN_OPTIONS = frozenset(
    (
        "maxpoolsize",
        "serverselectiontimeoutms",
        "timeoutms",
        "maxidletimems",
        "connecttimeoutms",
        "heartbeatfrequencyms",
        "retrywrites",
        "w",
        "journal",
        "appname",
    )
)
# Keyed per process, so that a cache key is no digest of a password that could be guessed offline.
_PROCESS_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A MongoDB of our own in a directory."""

    directory: Path


@dataclass(frozen=True, slots=True)
class Server:
    """A MongoDB, or a service that speaks its protocol."""

    uri: Secret
    """For the client: without user name, password, prefix and the options that Settings holds."""
    hosts: str
    is_cosmos: bool


Target = Embedded | Server


@dataclass(frozen=True, slots=True)
class Settings:
    """What a store has to know; safe to print, since passwords are masked everywhere."""

    store_uri: str
    target: Target
    database: str
    prefix: str
    artifact_root: str
    username: str | None = None
    password: Secret | None = None
    max_pool_size: int = DEFAULT_POOL_SIZE
    server_selection_timeout: float = DEFAULT_SELECTION_MS / 1000
    open_timeout: float = DEFAULT_OPEN_TIMEOUT
    timeout: float = DEFAULT_TIMEOUT
    write_concern: str | int = "majority"
    journal: bool | None = None
    retry_writes: bool | None = None
    max_idle_time_ms: int | None = None
    watching: tuple[tuple[str, int], ...] = ()
    """How the driver is to watch the server, where the URI says so."""
    app_name: str = APP_NAME
    max_param_value_length: int = MAX_PARAM_VALUE_LENGTH
    audit: bool = False
    portable: bool = False
    """Send only what Azure Cosmos DB for MongoDB (RU) knows as well; see docs/azure.md."""
    credential_free_uri: Secret = field(default=Secret(""), repr=False)
    """The store URI without user name and password, prefix included: for other programs' command lines."""
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def resolve(
        cls,
        uri: str | None = None,
        *,
        artifact_root: str | None = None,
        environ: Mapping[str, str] | None = None,
        conf: Path | None = None,
    ) -> Settings:
        """Read every source; the precedence is the table in ``docs/configuration.md``."""
        environ = os.environ if environ is None else environ
        file = configfile.load(configfile.locate(environ, conf))
        return _Resolution(environ, file).settings(uri, artifact_root)

    def client_options(
        self, embedded_uri: str | None = None, *, patient: bool = False
    ) -> tuple[str, dict[str, Any]]:
        """``AsyncMongoClient(uri, **options)``, credentials included: never log the result.

        An embedded target needs the URI of its running server. A patient client leaves a server that is
        silent as late as the driver does: for work that is not simply sent again.
        """
        options: dict[str, Any] = {
            "maxPoolSize": self.max_pool_size,
            "serverSelectionTimeoutMS": round(self.server_selection_timeout * 1000),
            "w": self.write_concern,
            "journal": self.journal,
            "retryWrites": self.retry_writes,
            "maxIdleTimeMS": self.max_idle_time_ms,
            "appname": self.app_name,
            **({} if patient else WATCHING),
            **dict(self.watching),
            "username": self.username,
            "password": self.password.reveal() if self.password else None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(self.target, Server):
            return self.target.uri.reveal(), given
        if embedded_uri is None:
            raise ValueError("client_options() of an embedded store needs the URI of its running server.")
        return embedded_uri, given

    @property
    def cache_key(self) -> str:
        """Equal for settings that can share a client in this process; holds nothing secret."""
        place = f"embedded:{self.target.directory}" if isinstance(self.target, Embedded) else None
        identity = json.dumps(self.client_options(place), sort_keys=True)
        return hashlib.blake2b(
            identity.encode("utf-8", "surrogatepass"), key=_PROCESS_KEY, digest_size=16
        ).hexdigest()

    def credential_environment(self) -> dict[str, Secret]:
        """The variables that give a child process the credentials that ``credential_free_uri`` leaves out."""
        if self.username is None:
            return {}
        variables = {credentials.USERNAME: Secret(self.username)}
        if self.password is not None:
            variables[credentials.PASSWORD] = self.password
        return variables


class _Resolution:
    """One pass over the sources, noting for each setting where its value came from."""

    def __init__(self, environ: Mapping[str, str], conf: ConfigFile) -> None:
        self.environ = environ
        self.conf = conf
        self.sources: dict[str, str] = {}

    def settings(self, uri: str | None, artifact_root: str | None) -> Settings:
        text = self._store_uri(uri)
        origin = self.sources["store_uri"]
        parsed = parse(text, origin)
        root = self._artifact_root(artifact_root, parsed)
        prefix = self._prefix(parsed)
        common: dict[str, Any] = {
            "store_uri": mask_uri(text),
            "prefix": prefix,
            "artifact_root": root,
            "open_timeout": self._seconds("open_timeout", ENV_OPEN_TIMEOUT, DEFAULT_OPEN_TIMEOUT),
            "max_param_value_length": self._max_param_value_length(),
            "audit": self._audit(),
            "sources": self.sources,
        }
        if isinstance(parsed, GenesisUri):
            return self._embedded(parsed, common)
        return self._server(parsed, common, origin)

    def _embedded(self, parsed: GenesisUri, common: dict[str, Any]) -> Settings:
        self.sources["database"] = "default"
        uri = "genesis" + parsed.directory.as_uri().removeprefix("file") + _fragment(common["prefix"])
        return Settings(
            **common,
            **self._limits(None),
            target=Embedded(parsed.directory),
            database=EMBEDDED_DATABASE,
            credential_free_uri=Secret(uri),
        )

    def _server(self, parsed: MongoUri, common: dict[str, Any], origin: str) -> Settings:
        self.sources["database"] = f"URI ({origin})"
        portable = self._portable(parsed)
        username, password = credentials.resolve(parsed, self.environ, self.conf, self.sources, origin)
        # Without authSource the user is looked up in the database that the URI names, so it has to stay;
        # otherwise two databases of one server share a client.
        with_database = username is not None and parsed.option("authSource") is None
        client_uri = Secret(parsed.render(with_database=with_database, left_out=_OWN_OPTIONS))
        return Settings(
            **common,
            **self._limits(parsed),
            **self._durability(parsed, portable),
            portable=portable,
            target=Server(client_uri, parsed.hosts, parsed.is_cosmos),
            database=parsed.database,
            username=username,
            password=password,
            app_name=parsed.option("appname") or APP_NAME,
            credential_free_uri=Secret(parsed.render(with_database=True) + _fragment(common["prefix"])),
        )

    def _store_uri(self, argument: str | None) -> str:
        if argument and argument.strip():
            return self._found("store_uri", argument.strip(), "argument")
        tracking = self.environ.get(ENV_TRACKING_URI, "").strip()
        if scheme_of(tracking) in SCHEMES:
            return self._found("store_uri", tracking, f"environment {ENV_TRACKING_URI}")
        for name in (ENV_URI, ENV_COSMOS_URI):
            if value := self.environ.get(name, "").strip():
                return self._found("store_uri", value, f"environment {name}")
        if value := self.conf.get("tracking", "uri") or "":
            return self._found("store_uri", value, self.conf.source("tracking", "uri"))
        return self._found("store_uri", "genesis://", "default")

    def _artifact_root(self, argument: str | None, parsed: GenesisUri | MongoUri) -> str:
        from mlflow.utils.uri import resolve_uri_if_local

        default = DEFAULT_ARTIFACT_ROOT
        if isinstance(parsed, GenesisUri):
            default = (parsed.directory / "artifacts").as_uri()
        # The server's variable repeats the argument it was started with, for stores that its own jobs open.
        root, source = next(
            (value, source)
            for value, source in (
                (argument, "argument"),
                (self.environ.get(ENV_SERVER_ARTIFACT_ROOT), f"environment {ENV_SERVER_ARTIFACT_ROOT}"),
                (self.environ.get(ENV_ARTIFACT_ROOT), f"environment {ENV_ARTIFACT_ROOT}"),
                (
                    self.conf.get("tracking", "default_artifact_root"),
                    self.conf.source("tracking", "default_artifact_root"),
                ),
                (default, "default"),
            )
            if value
        )
        self.sources["artifact_root"] = source
        return str(resolve_uri_if_local(root))

    def _prefix(self, parsed: GenesisUri | MongoUri) -> str:
        if parsed.prefix is not None:
            return self._found("prefix", parsed.prefix, "URI")
        text, source = self._environment_or_conf(ENV_PREFIX, "collection_prefix")
        return self._found("prefix", normalize_prefix(text or "", source), source)

    def _limits(self, parsed: MongoUri | None) -> dict[str, Any]:
        def option(name: str) -> str | None:
            return parsed.option(name) if parsed else None

        pool = self._number(
            "max_pool_size", "maxPoolSize", option("maxPoolSize"), ENV_POOL, DEFAULT_POOL_SIZE
        )
        selection = self._number(
            "server_selection_timeout",
            "serverSelectionTimeoutMS",
            option("serverSelectionTimeoutMS"),
            ENV_SELECTION,
            DEFAULT_SELECTION_MS,
        )
        if (timeout_ms := option("timeoutMS")) is not None:
            self.sources["timeout"] = "URI timeoutMS"
            timeout = _positive(timeout_ms, "URI option timeoutMS", "milliseconds") / 1000
        else:
            timeout = self._seconds("timeout", ENV_TIMEOUT, DEFAULT_TIMEOUT)
        given = {name: option(name) for name in WATCHING}
        watching = tuple((name, int(float(value))) for name, value in given.items() if value is not None)
        return {
            "max_pool_size": pool,
            "server_selection_timeout": selection / 1000,
            "timeout": timeout,
            "watching": watching,
        }

    def _portable(self, parsed: MongoUri) -> bool:
        text, source = self._environment_or_conf(ENV_PROFILE, "profile")
        if text is not None and text.lower() not in PROFILES:
            raise invalid(
                f"{source.removeprefix('environment ')} must be one of {', '.join(PROFILES)}, not {text!r}."
            )
        wanted = parsed.is_cosmos_ru if text is None else text.lower() == "portable"
        return self._found(
            "portable", wanted, source if text is not None or not wanted else "host of the URI"
        )

    def _durability(self, parsed: MongoUri, portable: bool) -> dict[str, Any]:
        """Acknowledged means durable: by a majority, or else in the journal unless the user refuses it."""
        text = parsed.option("w")
        concern: str | int = "majority" if text is None else int(text) if text.isdigit() else text
        if concern == 0:
            raise invalid(
                "The option w=0 in the store URI would lose writes silently: remove it, or write w=majority."
            )
        journal = _boolean(parsed.option("journal"))
        if journal is None and concern != "majority":
            journal = True
        retry_writes = _boolean(parsed.option("retryWrites"))
        idle = parsed.option("maxIdleTimeMS")
        if (parsed.is_cosmos or portable) and retry_writes is None:
            retry_writes = False
        max_idle = int(float(idle)) if idle else COSMOS_MAX_IDLE_MS if parsed.is_cosmos else None
        for name, given in (
            ("write_concern", text),
            ("journal", parsed.option("journal")),
            ("retry_writes", parsed.option("retryWrites")),
            ("max_idle_time_ms", idle),
        ):
            self.sources[name] = "URI" if given is not None else "default"
        return {
            "write_concern": concern,
            "journal": journal,
            "retry_writes": retry_writes,
            "max_idle_time_ms": max_idle,
        }

    def _max_param_value_length(self) -> int:
        text = self.conf.get("security", "max_param_value_length")
        source = self.conf.source("security", "max_param_value_length")
        if text is None:
            return self._found("max_param_value_length", MAX_PARAM_VALUE_LENGTH, "default")
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PARAM_VALUE_LENGTH:
            raise invalid(
                f"{source} must be a whole number from 1 to {MAX_PARAM_VALUE_LENGTH}, MLflow's own limit, "
                f"not {text!r}."
            )
        return self._found("max_param_value_length", int(text), source)

    def _audit(self) -> bool:
        text, source = self._environment_or_conf(ENV_AUDIT, "audit", section="security")
        value = as_boolean(text or "false", source.removeprefix("environment "))
        return self._found("audit", value, source)

    def _number(self, setting: str, option: str, in_uri: str | None, variable: str, default: int) -> int:
        if in_uri is not None:
            self.sources[setting] = f"URI {option}"
            return int(float(in_uri))
        text, source = self._environment_or_conf(variable, setting)
        self.sources[setting] = source
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or int(text) == 0:
            raise invalid(
                f"{source.removeprefix('environment ')} must be a whole number above 0, not {mask(text)!r}."
            )
        return int(text)

    def _seconds(self, setting: str, variable: str, default: float) -> float:
        text, source = self._environment_or_conf(variable, setting)
        self.sources[setting] = source
        return default if text is None else _positive(text, source.removeprefix("environment "), "seconds")

    def _environment_or_conf(
        self, variable: str, key: str, section: str = "tracking"
    ) -> tuple[str | None, str]:
        if text := self.environ.get(variable, "").strip():
            return text, f"environment {variable}"
        if value := self.conf.get(section, key):
            return value, self.conf.source(section, key)
        return None, "default"

    def _found(self, setting: str, value: T, source: str) -> T:
        self.sources[setting] = source
        return value


def _fragment(prefix: str) -> str:
    return f"#{prefix}" if prefix else ""


def _boolean(text: str | None) -> bool | None:
    return None if text is None else text == "true"


def _positive(text: str, name: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise invalid(f"{name} must be a number of {unit} above 0, not {mask(text)!r}.")
    return value
