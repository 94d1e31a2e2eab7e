"""``genesis-flow server`` with a team's data on an embedded MongoDB, and a browser that looks at it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from genesis_flow import embedded
from tests.client.conftest import PATIENCE_SECONDS, user_environment
from tests.forgetting import forgotten
from tests.mongod import free_port
from tools.browser import Window, chromium, find_chromium, open_another, open_profile
from tools.demo_data import Demo, fill


@dataclass(frozen=True)
class Site:
    address: str
    uri: str
    demo: Demo


@pytest.fixture(scope="session")
def chromium_path() -> str:
    path = find_chromium()
    if path is None:
        missing = (
            "Chromium is missing: apt-get install chromium fonts-dejavu-core, or set GENESIS_FLOW_CHROMIUM"
        )
        # Where it is checked whether a change may be merged, nothing is left out.
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return path


@pytest.fixture(scope="session")
def site(chromium_path: str) -> Iterator[Site]:
    """One for all modules: the demo that one of them starts is an experiment more."""
    folder = Path(tempfile.mkdtemp(prefix="genesis-flow-browser-"))
    directory = folder / "data"
    port = free_port()
    command = [sys.executable, "-m", "genesis_flow.cli", "server", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", f"genesis://{directory}"],
            cwd=folder,
            env=user_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with forgotten():
                demo = fill(f"genesis://{directory}")
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + PATIENCE_SECONDS
            while f"MLflow is at {address}" not in (said := (folder / "log").read_text()):
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.1)
            yield Site(address, f"genesis://{directory}", demo)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=PATIENCE_SECONDS)
            embedded.stop(directory, force=True)
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    expect.set_options(timeout=120_000)  # a machine that is busy with other tests
    with chromium(chromium_path) as running:
        yield running


@pytest.fixture(scope="module")
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """The interface, which is large, is loaded and compiled once for all windows of a module."""
    opened = open_profile(browser)
    yield opened
    opened.close()


@pytest.fixture
def window(profile: BrowserContext, site: Site) -> Iterator[Window]:
    """It remembers nothing. Whatever a test looks at, no call to the server may have been refused."""
    opened = open_another(profile, site.address)
    yield opened
    opened.close()
    assert opened.calls, "the page asked the server nothing"
    assert opened.refused == []
    assert opened.errors == []
