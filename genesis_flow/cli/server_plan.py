"""What ``genesis-flow server`` runs: MLflow's command line and environment, with no password in the first."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import click

from genesis_flow.core.settings import (
    ENV_COSMOS_URI,
    ENV_JOBS_USER,
    ENV_TRACKING_URI,
    ENV_URI,
    Embedded,
    Settings,
)
from genesis_flow.core.uri import SCHEMES, scheme_of

APP_NAME = "genesis-flow"
LOGIN_APP = "basic-auth"
JOBS_VARIABLE = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"
ENGINE_VARIABLE = "MLFLOW_SERVER_JOB_EXECUTION_ENGINE"
LEASE_VARIABLE = "MLFLOW_SERVER_JOB_LEASE_TTL"
ROLLUPS_VARIABLE = "MLFLOW_SQL_TRACE_ROLLUPS_ENABLED"
HUEY, EXECUTOR, OFF = "huey", "executor", "off"
# The jobs of a killed server shall run elsewhere within a minute.
LEASE_SECONDS = 30
# How the server's own traces, those of the gateway's calls, are handed to the store: of a second, or so many
# spans, at once. MLflow's 5 spans and 5 s cost each call three times as many commands, and show it later.
_TOGETHER = {
    "MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE": "100",
    "MLFLOW_ASYNC_TRACE_LOGGING_MAX_INTERVAL_MILLIS": "1000",
}
# Texts that MLflow reads as true in a variable.
_TRUE = ("true", "1")
GATEWAY_VARIABLE = "MLFLOW_GATEWAY_URI"
# One process answers a person at a laptop; each more takes its 250 MB and seconds of start.
EMBEDDED_WORKERS = 1

# Options that make `mlflow server` run another kind of server than uvicorn.
_OTHER_SERVERS = ("--gunicorn-opts", "--waitress-opts", "--dev")
_OTHER_SERVER_VARIABLES = ("MLFLOW_GUNICORN_OPTS",)
_SECRET_OPTIONS = ("tlsCertificateKeyFilePassword=", "AWS_SESSION_TOKEN:")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options that ``genesis-flow server`` understands itself; ``others`` are for MLflow."""

    backend: str | None = None
    registry: str | None = None
    read_replica: str | None = None
    artifact_root: str | None = None
    artifacts_destination: str | None = None
    serve_artifacts: bool | None = None
    host: str = "127.0.0.1"
    port: int = 5000
    workers: int | None = None
    static_prefix: str = ""
    jobs: str | None = None
    jobs_user: str | None = None
    workspaces: bool | None = None
    workspace_store: str | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A command that can be shown to anybody, and the environment that it needs."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    host: str
    """Where to ask whether the server answers."""
    address: str
    """What to open in a browser."""
    health: str
    """The path that answers once the server does."""
    has_health_endpoints: bool
    jobs: str
    """What runs background jobs."""
    login: bool = False
    """Whether it asks for a user and a password."""


def make_plan(wishes: Wishes, settings: Settings, environ: Mapping[str, str]) -> Plan:
    """How to run `mlflow server` for these wishes on the store of ``settings``."""
    _refuse_other_secrets(settings)
    options = [
        *("--backend-store-uri", settings.credential_free_uri.reveal()),
        *_option("--registry-store-uri", _same_login(wishes.registry, settings, environ)),
        *_option("--read-replica-backend-store-uri", _same_login(wishes.read_replica, settings, environ)),
        *_artifact_options(wishes, settings),
        *("--host", wishes.host, "--port", str(wishes.port)),
        *_option("--workers", _workers(wishes, settings)),
        *_option("--static-prefix", wishes.static_prefix),
        *_workspace_options(wishes, settings, environ),
    ]
    extended = not runs_another_application(wishes.others, environ)
    login = app_of(wishes.others) == LOGIN_APP
    if extended and not login:
        options += ["--app-name", APP_NAME]
    host = _EVERYWHERE.get(wishes.host, wishes.host)
    scheme = (
        "https"
        if "--ssl-certfile" in " ".join((*wishes.others, environ.get("MLFLOW_UVICORN_OPTS", "")))
        else "http"
    )
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{wishes.port}{wishes.static_prefix}"
    jobs = _jobs(wishes, environ)
    environment = _environment(settings, environ)
    _set_jobs(environment, jobs)
    _set_user_of_jobs(environment, wishes, login=login, jobs=jobs)
    for name, value in _TOGETHER.items():
        environment.setdefault(name, value)
    if scheme == "http":
        # Judges whose model is an endpoint of the gateway call this server; they would take the store's URI.
        environment.setdefault(GATEWAY_VARIABLE, address)
    return Plan(
        command=(sys.executable, "-m", "mlflow", "server", *options, *wishes.others),
        environment=environment,
        host=host,
        address=address,
        health=f"{wishes.static_prefix}/health",
        has_health_endpoints=extended,
        jobs=jobs,
        login=login,
    )


def runs_another_application(others: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether MLflow is told to run what our endpoints cannot be added to."""
    return (
        app_of(others) not in (None, LOGIN_APP)
        or any(text.split("=")[0] in _OTHER_SERVERS for text in others)
        or any(environ.get(name) for name in _OTHER_SERVER_VARIABLES)
    )


def app_of(others: Sequence[str]) -> str | None:
    """The application that MLflow is told to run."""
    name = None
    for text, after in zip(others, (*others[1:], ""), strict=False):
        option, equals, value = text.partition("=")
        if option == "--app-name":
            name = value if equals else after
    return name


def _option(name: str, value: object | None) -> list[str]:
    return [] if value in (None, "") else [name, str(value)]


def _workspace_options(wishes: Wishes, settings: Settings, environ: Mapping[str, str]) -> list[str]:
    if not wishes.workspaces:
        return ["--disable-workspaces"] if wishes.workspaces is False else []
    keeper = _same_login(wishes.workspace_store, settings, environ)
    return ["--enable-workspaces", *_option("--workspace-store-uri", keeper)]


def _workers(wishes: Wishes, settings: Settings) -> int | None:
    if wishes.workers is None and isinstance(settings.target, Embedded):
        return EMBEDDED_WORKERS
    return wishes.workers


def _artifact_options(wishes: Wishes, settings: Settings) -> list[str]:
    """MLflow hands the store whatever root it is told, so it has to be told the configured one.

    On an embedded database clients write artifacts into its directory. New experiments made through a
    server that only this machine reaches do the same, so that clients with and without the server share
    them; for other machines the server passes artifacts on, to the same directory.
    """
    root, destination = wishes.artifact_root, wishes.artifacts_destination
    configured = settings.sources["artifact_root"] != "default"
    if isinstance(settings.target, Embedded):
        shared = Path(settings.target.directory, "artifacts").as_uri()
        destination = destination or shared
        if root is None and not configured and (wishes.serve_artifacts is False or wishes.host in _LOOPBACK):
            root = shared
    if root is None and configured:
        root = settings.artifact_root
    flags = {None: [], True: ["--serve-artifacts"], False: ["--no-serve-artifacts"]}[wishes.serve_artifacts]
    return [
        *_option("--default-artifact-root", root),
        *_option("--artifacts-destination", destination),
        *flags,
    ]


def _refuse_other_secrets(settings: Settings) -> None:
    """Those that a URI can hold beside the password, and that the environment cannot bring."""
    uri = settings.credential_free_uri.reveal().lower()
    for name in _SECRET_OPTIONS:
        if name.lower() in unquote(uri):
            raise click.UsageError(
                f"The store URI has {name[:-1]}, which MLflow would print: use a key file without a password "
                "that only this user can read; a token can come from the environment of AWS."
            )


def _same_login(uri: str | None, settings: Settings, environ: Mapping[str, str]) -> str | None:
    """Another store of ours that the server shall use: its password must come from the environment too."""
    if uri is None or scheme_of(uri) not in SCHEMES:
        return uri
    other = Settings.resolve(uri, environ=environ)
    from_uri = any(other.sources.get(name, "").startswith("URI") for name in ("username", "password"))
    if from_uri and (other.username, other.password) != (settings.username, settings.password):
        raise click.UsageError(
            f"{other.store_uri} has another user or password than the backend store. Processes of the server "
            "get one of them, from the environment: use the same for both, or certificates."
        )
    _refuse_other_secrets(other)
    return other.credential_free_uri.reveal()


def _environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Without URIs that may hold a password; with credentials that were in one."""
    environment = {
        name: value
        for name, value in environ.items()
        if name not in (ENV_URI, ENV_COSMOS_URI, *_MLFLOW_URIS)
        and not (name == ENV_TRACKING_URI and scheme_of(value.strip()) in SCHEMES)
    }
    given = settings.credential_environment()
    for setting, name in zip(("username", "password"), given, strict=False):
        # The server's processes find for themselves what the environment or a file gives.
        if settings.sources[setting].startswith("URI"):
            environment[name] = given[name].reveal()
    return environment


def _jobs(wishes: Wishes, environ: Mapping[str, str]) -> str:
    """The runner of background jobs. Without a word none: they take more memory than the server itself."""
    if environ.get(ROLLUPS_VARIABLE, "").lower() in _TRUE:
        raise click.UsageError(
            f"{ROLLUPS_VARIABLE} is for SQL databases: unset it. Sums of traces are kept here without it."
        )
    if wishes.jobs is not None:
        return wishes.jobs
    if environ.get(JOBS_VARIABLE, "").lower() not in _TRUE:
        return OFF
    return EXECUTOR if environ.get(ENGINE_VARIABLE) else HUEY


def _set_jobs(environment: dict[str, str], jobs: str) -> None:
    environment[JOBS_VARIABLE] = "false" if jobs == OFF else "true"
    environment.pop(ENGINE_VARIABLE, None)  # MLflow has no name for Huey
    if jobs == EXECUTOR:
        environment[ENGINE_VARIABLE] = EXECUTOR
    environment.setdefault(LEASE_VARIABLE, str(LEASE_SECONDS))


def _set_user_of_jobs(environment: dict[str, str], wishes: Wishes, *, login: bool, jobs: str) -> None:
    environment.pop(ENV_JOBS_USER, None)
    if not wishes.jobs_user:
        return
    if not login or jobs == OFF:
        raise click.UsageError(
            "--jobs-user is for a server with a login that runs jobs: give --app-name basic-auth and --jobs "
            "too, or leave it out."
        )
    environment[ENV_JOBS_USER] = wishes.jobs_user


# Given to MLflow as options instead.
_MLFLOW_URIS = (
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_WORKSPACE_STORE_URI",
)
