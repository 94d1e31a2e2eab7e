"""Stores in programs that fork, spawn, serve, run loops and end in the middle of things."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from genesis_flow.sync.tracking import MongoDBStore
from tests.client.conftest import user_environment
from tests.mongod import free_port
from tests.signals import heed_interrupts

ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("GENESIS_FLOW_LONG"))
FORKS = 200 if LONG else 12
PATIENCE = 1500 if LONG else 150

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

PREAMBLE = """
import asyncio, json, os, sys, threading, time, warnings
# What Python says of every fork beside a thread since 3.12.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from mlflow.entities import Metric, Param
from genesis_flow import MongoDBModelRegistryStore, MongoDBStore

uri = sys.argv[1]
store = MongoDBStore(uri)

def new_run():
    return store.create_run("0", "u", 1, [], "r").info.run_id

def log(run, key, number):
    store.log_metric(run, Metric(key, float(number), 1, number))
"""

Run = Callable[..., Any]


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
def run_script(store_uri: str, tmp_path: Path) -> Run:
    """Runs a script that must end well and in silence; returns the JSON that it printed last."""

    def run(body: str, *flags: str) -> Any:
        script = tmp_path / "script.py"
        script.write_text(PREAMBLE + body)
        done = subprocess.run(
            [sys.executable, *flags, str(script), store_uri],
            env=user_environment(PYTHONPATH=str(ROOT)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


def points(store_uri: str, run: str, key: str) -> list[float]:
    store = MongoDBStore(store_uri)
    try:
        return [metric.value for metric in store.get_metric_history(run, key)]
    finally:
        store.close()


@needs_fork
@pytest.mark.timeout(PATIENCE + 60)
def test_forks_in_mid_use(run_script: Run, store_uri: str) -> None:
    """While four threads log, children are forked that log as well and end in three ways."""
    answer = run_script(
        f"""
ROUNDS = {FORKS}
run = new_run()
logged = [0] * 4
stop = threading.Event()

def work(number):
    while not stop.is_set():
        log(run, f"thread {{number}}", logged[number])
        logged[number] += 1

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for round in range(ROUNDS):
    time.sleep(0.02)
    pid = os.fork()
    if pid == 0:
        log(run, "children", round)
        others = [threading.Thread(target=log, args=(run, f"other {{each}}", round)) for each in range(2)]
        for other in others:
            other.start()
        for other in others:
            other.join()
        if round % 3 == 0:
            os._exit(0)
        sys.exit(0)
    deadline = time.monotonic() + 60
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            raise SystemExit(f"the child of round {{round}} hangs")
        time.sleep(0.01)
stop.set()
for thread in threads:
    thread.join(60)
    assert not thread.is_alive(), "a thread of the parent hangs"
print(json.dumps([run, logged]))
"""
    )
    run, logged = answer
    assert points(store_uri, run, "children") == list(range(FORKS))
    for other in range(2):
        assert points(store_uri, run, f"other {other}") == list(range(FORKS))
    for number, count in enumerate(logged):
        assert points(store_uri, run, f"thread {number}") == list(range(count)), (
            "an acknowledged point is lost"
        )
        assert count > 0


def test_spawned_processes_and_pickled_stores(run_script: Run, store_uri: str) -> None:
    run = run_script(
        """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def work(given, run, number):
    given.log_metric(run, Metric("m", float(number), 1, number))
    return os.getpid()

if __name__ == "__main__":
    run = new_run()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        pids = {future.result() for future in [pool.submit(work, store, run, number) for number in range(8)]}
    assert os.getpid() not in pids
    print(json.dumps(run))
"""
    )
    assert points(store_uri, run, "m") == list(range(8))


def test_64_threads(run_script: Run, store_uri: str) -> None:
    run = run_script(
        """
run = new_run()
barrier = threading.Barrier(64)
failures = []

def work(number):
    barrier.wait()
    try:
        for step in range(10):
            log(run, f"m{number}", step)
        assert len(store.get_run(run).data.metrics) >= 1
    except BaseException as error:
        failures.append(repr(error))

threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
assert threading.active_count() < 10, threading.enumerate()
print(json.dumps(run))
"""
    )
    for number in range(64):
        assert points(store_uri, run, f"m{number}") == list(range(10))


def test_inside_running_loops_as_in_jupyter(run_script: Run, store_uri: str) -> None:
    """Cells are coroutines of a running loop: blocking calls in them, tasks beside, loop after loop."""
    run = run_script(
        """
from genesis_flow.aio import MongoDBStore as AsyncStore
run = new_run()

async def cell(number):
    log(run, "blocking", number)
    async with AsyncStore(uri) as other:
        await asyncio.gather(*(
            other.log_metric(run, Metric(f"task {task}", float(number), 1, number)) for task in range(5)
        ))
    await asyncio.to_thread(log, run, "thread", number)
    log(run, "blocking", number + 100)

for number in range(4):
    asyncio.run(cell(number))
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
for number in range(4, 8):
    loop.run_until_complete(cell(number))
loop.close()
print(json.dumps(run))
""",
        "-W",
        "error",
    )
    for key in ("thread", *(f"task {task}" for task in range(5))):
        assert points(store_uri, run, key) == list(range(8))
    assert sorted(points(store_uri, run, "blocking")) == [*range(8), *range(100, 108)]


@pytest.mark.parametrize("end", ["return", "sys.exit(0)", "raise SystemExit"])
def test_exit_during_writes_is_silent_and_keeps_what_was_acknowledged(
    run_script: Run, store_uri: str, end: str
) -> None:
    run, acknowledged = run_script(
        f"""
run = new_run()
acknowledged = [0] * 4

def work(number):
    while True:
        log(run, f"m{{number}}", acknowledged[number])
        acknowledged[number] += 1

for number in range(4):
    threading.Thread(target=work, args=(number,), daemon=True).start()

def main():
    while not all(acknowledged):
        time.sleep(0.01)
    time.sleep(0.2)
    print(json.dumps([run, acknowledged]), flush=True)
    {end}

main()
"""
    )
    for number, count in enumerate(acknowledged):
        found = points(store_uri, run, f"m{number}")
        assert count > 0
        assert found == list(range(len(found)))
        assert len(found) >= count


def test_ctrl_c_during_writes(store_uri: str, tmp_path: Path) -> None:
    """KeyboardInterrupt comes out of the call, nothing hangs, and what was acknowledged is there."""
    script = tmp_path / "script.py"
    script.write_text(
        PREAMBLE
        + """
run = new_run()
count = 0
try:
    while True:
        log(run, "m", count)
        count += 1
        if count == 1:
            print(run, flush=True)
except KeyboardInterrupt:
    print(count, flush=True)
    log(run, "after", 1)
"""
    )
    process = subprocess.Popen(
        [sys.executable, str(script), store_uri],
        env=user_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stdout is not None
    run = process.stdout.readline().strip()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    found = points(store_uri, run, "m")
    assert found[: int(out)] == list(range(int(out)))
    assert len(found) <= int(out) + 1
    assert points(store_uri, run, "after") == [1]


APPLICATION = """
import os, sys, threading
from mlflow.entities import Metric
from genesis_flow import MongoDBStore

store = MongoDBStore(os.environ["STORE"])
run = os.environ["RUN"]
store.log_metric(run, Metric("loading", 1.0, 1, os.getpid()))  # before gunicorn forks, with --preload

def log(step):
    store.log_metric(run, Metric("requests", float(os.getpid()), 1, step))
    return str(os.getpid()).encode()

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [log(int(environ["PATH_INFO"].strip("/")))]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = log(int(scope["path"].strip("/")))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


# uvicorn ends a worker that does not answer it for five seconds, as on a machine that stands still.
# A connection that is kept alive keeps a worker of gunicorn alive as well, for its graceful timeout of 30 s.
@needs_fork
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("server", "command"),
    [
        (
            "gunicorn",
            "--preload --workers 2 --threads 4 --keep-alive 0 --bind 127.0.0.1:{port} application:wsgi",
        ),
        (
            "uvicorn",
            "--workers 2 --host 127.0.0.1 --port {port} --log-level warning "
            "--timeout-worker-healthcheck 120 application:asgi",
        ),
    ],
)
def test_servers_with_several_workers(server: str, command: str, store_uri: str, tmp_path: Path) -> None:
    store = MongoDBStore(store_uri)
    run = store.create_run("0", "u", 1, [], "r").info.run_id
    (tmp_path / "application.py").write_text(APPLICATION)
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", server, *command.format(port=port).split()],
            cwd=tmp_path,
            env=user_environment(STORE=store_uri, RUN=run, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}"),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(port):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        workers = set()
        for step in range(1, 41):
            answer = requests.get(f"http://127.0.0.1:{port}/{step}", timeout=PATIENCE)
            assert answer.status_code == 200, (tmp_path / "log").read_text()
            workers.add(answer.text)
    finally:
        process.terminate()
        # An interpreter with MLflow in it takes seconds to end on a busy machine.
        assert process.wait(timeout=PATIENCE) in (0, -signal.SIGTERM)
    history = store.get_metric_history(run, "requests")
    assert {metric.step for metric in history} == set(range(41))
    assert {str(int(metric.value)) for metric in history} >= workers
    assert "Traceback" not in (tmp_path / "log").read_text()
    store.close()


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/0", timeout=10).ok
    except (requests.ConnectionError, requests.Timeout):  # or it is slow, on a busy machine
        return False
