"""``genesis-flow server --metrics``: the processes of the server count, and this one answers Prometheus."""

import dataclasses
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click

from genesis_flow.cli.server_plan import Plan
from genesis_flow.core.settings import Settings
from genesis_flow.mongo.observed import VARIABLE

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OTHER_EXPORTER = ("--expose-prometheus", "MLFLOW_EXPOSE_PROMETHEUS", FOLDER_VARIABLE.lower())
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]]+):(\d{1,5})")


@contextmanager
def metrics_told(
    plan: Plan, settings: Settings, others: tuple[str, ...], address: str | None
) -> Iterator[Plan]:
    """The plan, whose processes count, and an answer to Prometheus as long as the server runs.

    Without an address neither: nor do the processes then, whatever they inherit.
    """
    environment = {name: text for name, text in plan.environment.items() if name != VARIABLE}
    if address is None:
        yield dataclasses.replace(plan, environment=environment)
        return
    if find_spec("prometheus_client") is None:
        raise click.ClickException("--metrics needs the extra `metrics` of genesis-flow (prometheus-client).")
    refuse_other_exporter(others, plan.environment)
    host, port = host_and_port(address)
    with tempfile.TemporaryDirectory(prefix="genesis-flow-metrics-") as folder:
        environment |= {VARIABLE: "true", FOLDER_VARIABLE: folder}
        with _answering(host, port, settings, Path(folder)) as bound:
            shown = f"[{host}]" if ":" in host else host
            click.echo(f"Metrics are at http://{shown}:{bound}/metrics")
            if not plan.has_health_endpoints:
                click.echo("With these options requests are not counted, only the database's part.", err=True)
            yield dataclasses.replace(plan, environment=environment)


@contextmanager
def _answering(host: str, port: int, settings: Settings, folder: Path) -> Iterator[int]:
    from genesis_flow.metrics.exporter import Exporter
    from genesis_flow.metrics.folder import Folder
    from genesis_flow.metrics.state import State

    state = State(settings)
    try:
        exporter = Exporter(port, host, [state], folder=Folder(folder))
    except OSError as error:
        raise click.ClickException(
            f"Cannot answer Prometheus on {host}, port {port} ({error.strerror or error}): stop what uses "
            "it, or choose another with --metrics-address."
        ) from error
    try:
        with exporter:
            yield exporter.port
    finally:
        state.close()


def host_and_port(address: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(address.strip())
    if found is None or int(found[2]) > 65535:
        raise click.UsageError(
            "--metrics-address (GENESIS_FLOW_METRICS_ADDRESS) is a host and a port, such as 127.0.0.1:9464 "
            "or [::1]:9464."
        )
    return found[1].strip("[]"), int(found[2])


def refuse_other_exporter(others: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """Both would have their files in one folder, and MLflow's has no place for its own."""
    option, *variables = _OTHER_EXPORTER
    given = [option] if any(text.split("=")[0] == option for text in others) else []
    given += [name for name in variables if environ.get(name)]
    if given:
        raise click.UsageError(
            f"--metrics and {given[0]} do not go together: --metrics counts what MLflow's exporter does, and "
            "the requests that it leaves out. Leave one of them out."
        )
