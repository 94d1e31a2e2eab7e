"""Azurite, Microsoft's emulator of Azure Blob Storage, and a network in front of it that can fail."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mongod import free_port

ACCOUNT = "devstoreaccount1"
# The key that Azurite's documentation publishes for this account.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
START_TIMEOUT = 60
INSTALLED = Path(__file__).parents[2] / ".ci" / "azurite" / "node_modules" / ".bin"
INSTALL = "npm install --prefix .ci/azurite --no-save azurite@3.35.0"


def find_azurite() -> Path:
    """The program; without it tests fail under CI and are skipped elsewhere."""
    found = shutil.which("azurite-blob", path=f"{INSTALLED}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        message = f"Azurite is not installed: {INSTALL}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return Path(found)


class Azurite:
    """A running emulator."""

    def __init__(self, port: int, scheme: str = "http") -> None:
        self.port = port
        self.scheme = scheme

    def endpoint(self, port: int | None = None) -> str:
        return f"BlobEndpoint={self.scheme}://127.0.0.1:{port or self.port}/{ACCOUNT};"

    def connection_string(self, port: int | None = None) -> str:
        return f"AccountName={ACCOUNT};AccountKey={KEY};{self.endpoint(port)}"


@contextlib.contextmanager
def running_azurite(folder: Path, *options: str, scheme: str = "http") -> Iterator[Azurite]:
    program, port = find_azurite(), free_port()
    with (folder / "azurite.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(program),
                # The library speaks a newer version of the protocol than the emulator knows.
                *("--silent", "--disableTelemetry", "--skipApiVersionCheck"),
                *("--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
                *options,
            ],
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_listening(process, port, folder / "azurite.log")
        yield Azurite(port, scheme)
    finally:
        process.kill()
        process.wait()


def _wait_until_listening(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Azurite did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


class Network:
    """A relay to Azurite that counts bytes, and stalls or cuts connections when told to."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.sent = 0
        self.received = 0
        self.stall_after: int | None = None
        """Neither direction goes on after so many bytes in both together."""
        self.cuts = 0
        """How many connections are cut after ``cut_after`` bytes."""
        self.cut_after = 0
        self.stalled = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                for source, sink, outwards in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._relay, args=(source, sink, outwards), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, outwards: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    if self.stall_after is not None and self.sent + self.received > self.stall_after:
                        self.stalled.set()
                        return  # without closing: who waits, waits
                    if self.cuts and passed > self.cut_after:
                        self.cuts -= 1
                        break
                    self.sent += len(data) if outwards else 0
                    self.received += 0 if outwards else len(data)
                passed += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
