"""``genesis-flow server``: MLflow's own server and web interface on a store of ours."""

import os
import socket
from contextlib import closing
from typing import Any

import click

from genesis_flow.cli.quickstart import INSTALL_SERVER
from genesis_flow.compat.packages import is_whole

WORKSPACES_VARIABLE = "MLFLOW_ENABLE_WORKSPACES"
# What the server's processes look up by the scheme of the store's URI.
_STORES = (
    *("mlflow.tracking_store", "mlflow.model_registry_store", "mlflow.workspace_provider"),
    "mlflow.scorer_store",
)


@click.command(
    context_settings={"ignore_unknown_options": True, "max_content_width": 100},
    epilog="Every other option goes to `mlflow server`, whose help lists them.",
)
@click.option(
    "--backend-store-uri",
    "--uri",
    "backend",
    envvar="MLFLOW_BACKEND_STORE_URI",
    metavar="URI",
    help="mongodb://host/database[#prefix] or genesis:///dir. Else the environment (MLFLOW_TRACKING_URI, "
    "GENESIS_FLOW_MONGODB_URI), else mlflow.conf, else an embedded MongoDB in ./genesis-data.",
)
@click.option(
    "--registry-store-uri",
    "registry",
    envvar="MLFLOW_REGISTRY_STORE_URI",
    metavar="URI",
    help="The model registry, if elsewhere.",
)
@click.option(
    "--read-replica-backend-store-uri",
    "read_replica",
    envvar="MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    metavar="URI",
    hidden=True,
)
@click.option(
    "--default-artifact-root",
    "artifact_root",
    envvar="MLFLOW_DEFAULT_ARTIFACT_ROOT",
    metavar="URI",
    help="Where new experiments keep artifacts. Else GENESIS_FLOW_ARTIFACT_ROOT, else mlflow.conf, else the "
    "directory of an embedded database; otherwise the server passes artifacts on (mlflow-artifacts:/).",
)
@click.option(
    "--artifacts-destination",
    "artifacts_destination",
    envvar="MLFLOW_ARTIFACTS_DESTINATION",
    metavar="URI",
    help="Where the server keeps the artifacts that it passes on.",
)
@click.option(
    "--serve-artifacts/--no-serve-artifacts",
    "serve_artifacts",
    envvar="MLFLOW_SERVE_ARTIFACTS",
    default=None,
    help="Whether it passes artifacts on.",
)
@click.option("--host", envvar="MLFLOW_HOST", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    "-p",
    envvar="MLFLOW_PORT",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="The port to listen on.",
)
@click.option(
    "--workers",
    "-w",
    envvar="MLFLOW_WORKERS",
    type=click.IntRange(1),
    help="How many processes answer: 4, or 1 on an embedded database, unless given.",
)
@click.option(
    "--jobs",
    type=click.Choice(["huey", "executor", "off"]),
    help="What runs background jobs: judges by schedule, evaluation runs, issue detection, archival. "
    "`executor` takes 2 processes of 250 MB, and one more for each job that runs; any number of servers "
    "share the jobs of a database. `huey` takes 8 to 9 processes of 250 MB, is for one server, and is what "
    "detects issues with keys of the gateway. `off`, the default, takes nothing.",
)
@click.option(
    "--jobs-user",
    "jobs_user",
    envvar="GENESIS_FLOW_JOBS_USER",
    metavar="NAME",
    help="With a login: the user of MLflow as whom judges and issue detection by schedule call endpoints of "
    "the AI gateway, and whose permissions count for it. Without a name the gateway refuses them.",
)
@click.option(
    "--enable-workspaces/--disable-workspaces",
    "workspaces",
    envvar="MLFLOW_ENABLE_WORKSPACES",
    default=None,
    help="Whether teams share the server, each in a workspace of its own that others do not see. Off unless "
    "given.",
)
@click.option(
    "--workspace-store-uri",
    "workspace_store",
    envvar="MLFLOW_WORKSPACE_STORE_URI",
    metavar="URI",
    help="Who keeps the list of workspaces, if not the backend store.",
)
@click.option(
    "--metrics",
    is_flag=True,
    help="Count requests, commands to the database and more, and answer Prometheus.",
)
@click.option(
    "--metrics-address",
    "metrics_address",
    envvar="GENESIS_FLOW_METRICS_ADDRESS",
    metavar="HOST:PORT",
    default="127.0.0.1:9464",
    show_default=True,
    help="Where --metrics answers, at /metrics. Whoever reaches it needs no login.",
)
@click.option("--static-prefix", "static_prefix", envvar="MLFLOW_STATIC_PREFIX", default="", hidden=True)
@click.argument("others", metavar="[MLFLOW OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def server(context: click.Context, /, **options: Any) -> None:
    """Run MLflow's server and web interface on a MongoDB.

    Prints the address once it answers; Ctrl-C or SIGTERM stops it and its workers. A password in the URI is
    passed to MLflow by the environment, which never prints it. Beside MLflow's own /health there are
    /genesis/live and /genesis/ready; the second asks the database.

    \b
    Examples:
      genesis-flow server                        an embedded MongoDB in ./genesis-data
      genesis-flow server --backend-store-uri mongodb://db/mlflow --host 0.0.0.0 --workers 4
      genesis-flow server --port 8080 --static-prefix /mlflow --metrics
      genesis-flow server --app-name basic-auth  asks for logins; users are kept in the same database.
                                                 MLFLOW_AUTH_ADMIN_PASSWORD is that of the first admin

    \b
    Exit codes:
      0  stopped by Ctrl-C or SIGTERM
      1  could not start, or ended by itself
      2  a wrong option
    """
    from genesis_flow.cli.server_login import login_told
    from genesis_flow.cli.server_metrics import metrics_told
    from genesis_flow.cli.server_plan import Wishes, make_plan  # imports MLflow: --help need not wait
    from genesis_flow.cli.server_process import run
    from genesis_flow.core.settings import Settings

    require_server_packages()
    if "--artifacts-only" in options["others"]:
        raise click.UsageError("A server for artifacts only uses no database: run `mlflow server` for it.")
    wants_metrics, address = options.pop("metrics"), options.pop("metrics_address")
    wishes = Wishes(**options)
    settings = Settings.resolve(wishes.backend, artifact_root=wishes.artifact_root)
    plan = make_plan(wishes, settings, os.environ)
    refuse_rivals(settings)
    require_free_port(wishes.host, wishes.port)
    click.echo(f"Opening {settings.store_uri}")
    open_store(settings, wishes.workspaces)
    if not plan.has_health_endpoints:
        click.echo("With these options there is no /genesis/live and /genesis/ready, only /health.", err=True)
    if plan.jobs == "off":
        click.echo(
            "Background jobs are off (judges by schedule, evaluation runs, issue detection, archival): "
            "--jobs executor runs them, in about 500 MB."
        )
    elif plan.login and not wishes.jobs_user:
        click.echo(
            "Judges and issue detection by schedule have no user, and the AI gateway refuses them: "
            "--jobs-user names one."
        )
    address = address if wants_metrics else None
    with (
        metrics_told(plan, settings, wishes.others, address) as counting,
        login_told(counting, settings) as told,
    ):
        context.exit(run(told))


def refuse_rivals(settings: Any) -> None:
    """One process would hold our store and another one theirs, as the order of packages falls."""
    from genesis_flow.core.uri import scheme_of
    from genesis_flow.plugins.entrypoints import rivals

    scheme = scheme_of(settings.credential_free_uri.reveal())
    for group in _STORES:
        if found := rivals(group, scheme):
            raise click.ClickException(
                f"{', '.join(found)} also claims {scheme}:// for {group}, and might serve some processes of "
                "the server: uninstall it, or run the server in an environment without it."
            )


def require_server_packages() -> None:
    """A client installs mlflow-skinny, which has the command `mlflow server` but not what it runs."""
    if not is_whole():
        raise click.ClickException(
            f"The server needs the whole of MLflow, not only mlflow-skinny: {INSTALL_SERVER}"
        )


def require_free_port(host: str, port: int) -> None:
    """Say it here: MLflow's processes would fail one after the other, with their tracebacks."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise click.ClickException(
            f"Cannot listen on {host}, port {port} ({error.strerror or error}): stop what uses it, or choose "
            "another with --port or --host."
        ) from error


def open_store(settings: Any, workspaces: bool | None) -> None:
    """Connect, and bring an empty database to the newest schema, before any process of MLflow starts."""
    from mlflow.utils.workspace_context import ServerWorkspaceContext
    from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

    from genesis_flow.sync.tracking import MongoDBStore

    if workspaces is not None:  # MLflow's processes are told by an option
        os.environ[WORKSPACES_VARIABLE] = str(workspaces).lower()
    store = MongoDBStore.from_settings(settings)
    with ServerWorkspaceContext(DEFAULT_WORKSPACE_NAME):
        store.search_experiments(max_results=1)  # a call as those to come: their patience, and their words
    store.close()  # an embedded server stays in use by this process
