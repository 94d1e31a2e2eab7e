"""A real Prometheus for tests and for the picture of the dashboard, and what it answers.

    python tools/prometheus.py FOLDER     unpacks Debian's package into FOLDER, where it is not installed

Found are the programs that GENESIS_FLOW_PROMETHEUS names the folder of, those of .ci/prometheus, and those on
the PATH. Nothing is installed: the package's service would be started with it.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "GENESIS_FLOW_PROMETHEUS"
ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ROOT / ".ci" / "prometheus"
RULES = ROOT / "deploy" / "prometheus" / "genesis-flow.rules.yaml"
_PATIENCE_SECONDS = 60
_CONFIGURATION = """
global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: {interval}}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: genesis-flow
    static_configs: [{{targets: ["{target}"]}}]
"""


def find(name: str = "prometheus") -> str | None:
    """The program, or None."""
    folders = [os.environ.get(FOLDER_VARIABLE), str(UNPACKED / "usr" / "bin"), os.environ.get("PATH")]
    return shutil.which(name, path=os.pathsep.join(filter(None, folders)))


def unpack(folder: Path) -> None:
    """Debian's package without its installation, from the sources of packages that this machine has."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # The user that apt-get drops its rights to may not write into the folder, and says so.
        quiet = ("-o", "APT::Sandbox::User=root")
        subprocess.run(["apt-get", *quiet, "download", "-qq", "prometheus"], cwd=scratch, check=True)
        (package,) = Path(scratch).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)


class Prometheus:
    """A server that scrapes one target."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **arguments: str) -> Any:
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        """The series that a query finds now."""
        found: list[dict[str, Any]] = self.ask("query", query=text)["result"]
        return found

    def query_range(self, text: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        asked = {"query": text, "start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        found: list[dict[str, Any]] = self.ask("query_range", **asked)["result"]
        return found

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@contextmanager
def running(program: str, target: str, port: int, *, interval: str = "1s") -> Iterator[Prometheus]:
    """A Prometheus with our rules that scrapes ``target``, host and port, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="genesis-flow-prometheus-") as name:
        folder = Path(name)
        text = _CONFIGURATION.format(interval=interval, rules=RULES, target=target)
        (folder / "prometheus.yml").write_text(text, encoding="utf-8")
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            made = Prometheus(f"http://127.0.0.1:{port}")
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while not made.is_ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Prometheus did not start:\n{log.read_text()}")
                time.sleep(0.1)
            yield made
        finally:
            process.terminate()
            process.wait(timeout=_PATIENCE_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if find() is None or find("promtool") is None:
        unpack(folder)
    program = find() or str(folder / "usr" / "bin" / "prometheus")
    subprocess.run([program, "--version"], check=True)


if __name__ == "__main__":
    main()
