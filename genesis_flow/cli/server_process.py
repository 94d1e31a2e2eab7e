"""Run a server that has children of its own: tell when it answers, and leave none of them behind."""

import http.client
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click

from genesis_flow.cli.server_plan import Plan
from genesis_flow.core.settings import ENV_QUEUES_NOTE

_POLL_SECONDS = 0.1
_PROBE_SECONDS = 1.0
# Within the 30 seconds that Kubernetes and systemd give at least; requests that take longer are cut off.
STOP_SECONDS = 15.0


def run(plan: Plan) -> int:
    """Until the server ends or somebody stops it; the exit code for the command."""
    with tempfile.TemporaryDirectory(prefix="genesis-flow-server-") as folder, _stop_requests() as stop:
        note = Path(folder, "queues")
        process = subprocess.Popen(
            plan.command,
            env={**plan.environment, ENV_QUEUES_NOTE: str(note)},
            stdin=subprocess.DEVNULL,
            # A group of its own: Ctrl-C reaches us alone, and we stop all of them in order.
            start_new_session=True,
        )
        try:
            _watch(process, plan, stop)
        finally:
            _end_group(process, stop)
            _remove_queues(note)
    if stop.count:
        click.echo("Stopped.")
        return 0
    click.echo(
        f"Error: The server ended by itself (exit code {process.returncode}); the lines above say why.",
        err=True,
    )
    return 1


def _remove_queues(note: Path) -> None:
    """MLflow's queues of jobs, which hold keys of providers; a server that had to be killed leaves them."""
    if note.exists():
        shutil.rmtree(note.read_text(), ignore_errors=True)


class _StopRequests:
    """How often somebody asked to stop."""

    def __init__(self) -> None:
        self.count = 0
        self.asked = threading.Event()

    def ask(self, number: int, frame: object) -> None:
        self.count += 1
        self.asked.set()


@contextmanager
def _stop_requests() -> Iterator[_StopRequests]:
    stop = _StopRequests()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(process: "subprocess.Popen[bytes]", plan: Plan, stop: _StopRequests) -> None:
    is_announced = False
    while process.poll() is None and not stop.asked.wait(_POLL_SECONDS):
        if not is_announced and _answers(plan):
            is_announced = True
            click.echo(f"MLflow is at {plan.address} (Ctrl-C stops it)")


def _answers(plan: Plan) -> bool:
    """Asked directly: a proxy of the environment would not know this machine."""
    where = urlsplit(plan.address)
    connection: http.client.HTTPConnection
    if where.scheme == "https":
        # Only whether something answers matters; the certificate is a matter of browsers.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(
            plan.host, where.port, timeout=_PROBE_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(plan.host, where.port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", plan.health)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end_group(process: "subprocess.Popen[bytes]", stop: _StopRequests) -> None:
    """Ask every process of the group to end, wait, and then make it: a second Ctrl-C shortens the wait."""
    deadline = time.monotonic() + STOP_SECONDS
    asked_before = stop.count
    _signal_group(process, signal.SIGTERM)
    while _is_alive(process):
        if time.monotonic() > deadline or stop.count > max(asked_before, 1):
            _signal_group(process, getattr(signal, "SIGKILL", signal.SIGTERM))
            deadline = float("inf")
            asked_before = stop.count
        time.sleep(_POLL_SECONDS)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """Whether there was anybody left to receive it."""
    if not hasattr(os, "killpg"):
        process.send_signal(number)
        return process.poll() is None
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses a group of which only zombies are left
        return False
    return True


def _is_alive(process: "subprocess.Popen[bytes]") -> bool:
    """Whether any process of the group is; orphans that came to us, the first of a container, are reaped."""
    if process.poll() is None:
        return True
    if not hasattr(os, "killpg"):
        return False
    try:
        while os.waitpid(-process.pid, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        pass  # no children of ours are left in it
    return _signal_group(process, 0)
