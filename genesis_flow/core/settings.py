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

from genesis_flow.core import configfile, credentials, options
from genesis_flow.core.configfile import ConfigFile
from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import Secret, mask, mask_uri
from genesis_flow.core.strict import StrictInput
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
# Between the processes of `genesis-flow server`: the file that says where MLflow keeps queues of jobs.
ENV_QUEUES_NOTE = "_GENESIS_FLOW_QUEUES"
# From the runner of a job to the process of it: the job and the name of this run of it.
ENV_JOB_RUN = "_GENESIS_FLOW_JOB_RUN"
# For jobs of a server with a login that nobody made: MLflow's user as whom they call the gateway.
ENV_JOBS_USER = "GENESIS_FLOW_JOBS_USER"
ENV_ARTIFACT_ROOT = "GENESIS_FLOW_ARTIFACT_ROOT"
ENV_SERVER_ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
ENV_MLFLOW_ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
ENV_PREFIX = "MONGODB_COLLECTION_PREFIX"
ENV_POOL = "MONGODB_MAX_POOL_SIZE"
ENV_SELECTION = "MONGODB_SERVER_SELECTION_TIMEOUT"
ENV_TIMEOUT = "GENESIS_FLOW_TIMEOUT"
ENV_PROFILE = "GENESIS_FLOW_PROFILE"
ENV_OPEN_TIMEOUT = "GENESIS_FLOW_OPEN_TIMEOUT"

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
    read_preference: str = "primary"


Target = Embedded | Server


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a store has to know; safe to print, since passwords are masked everywhere."""

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
    strict_input: StrictInput | None = None
    """What arguments are held against beyond MLflow's own checks; see docs/strict-input.md."""
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
        return Resolution(environ, file).settings(uri, artifact_root)

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
    def reads_elsewhere(self) -> bool:
        """Whether the URI has searches and histories read from other members than the primary."""
        return isinstance(self.target, Server) and self.target.read_preference != "primary"

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


class Resolution:
    """One pass over the sources, noting for each setting where its value came from."""

    def __init__(self, environ: Mapping[str, str], conf: ConfigFile) -> None:
        self.environ = environ
        self.conf = conf
        self.sources: dict[str, str] = {}

    def settings(self, uri: str | None, artifact_root: str | None) -> Settings:
        text = self.uri(uri)
        origin = self.sources["store_uri"]
        parsed = parse(text, origin)
        root = self.artifact_root(artifact_root, parsed)
        prefix = self.prefix(parsed)
        common: dict[str, Any] = {
            "store_uri": mask_uri(text),
            "prefix": prefix,
            "artifact_root": root,
            "open_timeout": self.open_timeout(),
            "max_param_value_length": self.option("max_param_value_length"),
            "audit": self.option("audit"),
            "strict_input": self._strict_input(),
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
        portable = self.portable(parsed)
        username, password = credentials.resolve(parsed, self.environ, self.conf, self.sources, origin)
        # Without authSource the user is looked up in the database that the URI names, so it has to stay;
        # otherwise two databases of one server share a client.
        with_database = username is not None and parsed.option("authSource") is None
        client_uri = Secret(parsed.render(with_database=with_database, left_out=_OWN_OPTIONS))
        return Settings(
            **common,
            **self._limits(parsed),
            **self.durability(parsed, portable),
            portable=portable,
            target=Server(
                client_uri, parsed.hosts, parsed.is_cosmos, parsed.option("readPreference") or "primary"
            ),
            database=parsed.database,
            username=username,
            password=password,
            app_name=parsed.option("appname") or APP_NAME,
            credential_free_uri=Secret(parsed.render(with_database=True) + _fragment(common["prefix"])),
        )

    def uri(self, argument: str | None) -> str:
        if argument and argument.strip():
            return self._resolved("store_uri", argument.strip(), "argument")
        tracking = self.environ.get(ENV_TRACKING_URI, "").strip()
        if scheme_of(tracking) in SCHEMES:
            return self._resolved("store_uri", tracking, f"environment {ENV_TRACKING_URI}")
        for name in (ENV_URI, ENV_COSMOS_URI):
            if value := self.environ.get(name, "").strip():
                return self._resolved("store_uri", value, f"environment {name}")
        if value := self.conf.get("tracking", "uri") or "":
            return self._resolved("store_uri", value, self.conf.source("tracking", "uri"))
        return self._resolved("store_uri", "genesis://", "default")

    def artifact_root(self, argument: str | None, parsed: GenesisUri | MongoUri) -> str:
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
                (self.environ.get(ENV_MLFLOW_ARTIFACT_ROOT), f"environment {ENV_MLFLOW_ARTIFACT_ROOT}"),
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

    def prefix(self, parsed: GenesisUri | MongoUri) -> str:
        if parsed.prefix is not None:
            return self._resolved("prefix", parsed.prefix, "URI")
        text, source = self._environment_or_conf(ENV_PREFIX, "collection_prefix")
        return self._resolved("prefix", normalize_prefix(text or "", source), source)

    def _limits(self, parsed: MongoUri | None) -> dict[str, Any]:
        given = {name: parsed.option(name) if parsed else None for name in WATCHING}
        watching = tuple((name, int(float(value))) for name, value in given.items() if value is not None)
        return {
            "max_pool_size": self.pool_size(parsed),
            "server_selection_timeout": self.selection_ms(parsed) / 1000,
            "timeout": self.timeout(parsed),
            "watching": watching,
        }

    def pool_size(self, parsed: MongoUri | None) -> int:
        return self._number("max_pool_size", "maxPoolSize", parsed, ENV_POOL, DEFAULT_POOL_SIZE)

    def selection_ms(self, parsed: MongoUri | None) -> int:
        option = "serverSelectionTimeoutMS"
        return self._number("server_selection_timeout", option, parsed, ENV_SELECTION, DEFAULT_SELECTION_MS)

    def timeout(self, parsed: MongoUri | None) -> float:
        if parsed is None or (in_ms := parsed.option("timeoutMS")) is None:
            return self._seconds("timeout", ENV_TIMEOUT, DEFAULT_TIMEOUT)
        self.sources["timeout"] = "URI timeoutMS"
        return _positive(in_ms, "URI option timeoutMS", "milliseconds") / 1000

    def open_timeout(self) -> float:
        return self._seconds("open_timeout", ENV_OPEN_TIMEOUT, DEFAULT_OPEN_TIMEOUT)

    def portable(self, parsed: MongoUri) -> bool:
        text, source = self._environment_or_conf(ENV_PROFILE, "profile")
        if text is not None and text.lower() not in PROFILES:
            raise invalid(
                f"{source.removeprefix('environment ')} must be one of {', '.join(PROFILES)}, not {text!r}."
            )
        wanted = parsed.is_cosmos_ru if text is None else text.lower() == "portable"
        return self._resolved(
            "portable", wanted, source if text is not None or not wanted else "host of the URI"
        )

    def durability(self, parsed: MongoUri, portable: bool) -> dict[str, Any]:
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

    def option(self, name: str) -> Any:
        """A setting that is as the table of options says."""
        reading = options.read(options.BY_NAME[name], self.environ, self.conf)
        return self._resolved(name, reading.value, reading.source)

    def _strict_input(self) -> StrictInput | None:
        # Read where they do not count, too: a bad value is to be met before somebody turns the switch.
        made = StrictInput(
            self.option("max_name_length"),
            self.option("max_tag_value_length"),
            self.option("max_text_length"),
            tuple(scheme.lower() for scheme in self.option("allowed_artifact_schemes")),
        )
        return made if self.option("enable_input_validation") else None

    def _number(self, setting: str, option: str, parsed: MongoUri | None, variable: str, default: int) -> int:
        if parsed is not None and (in_uri := parsed.option(option)) is not None:
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

    def _environment_or_conf(self, variable: str, key: str) -> tuple[str | None, str]:
        if text := self.environ.get(variable, "").strip():
            return text, f"environment {variable}"
        if value := self.conf.get("tracking", key):
            return value, self.conf.source("tracking", key)
        return None, "default"

    def _resolved(self, setting: str, value: T, source: str) -> T:
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
