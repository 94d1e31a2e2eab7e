"""Metrics for Prometheus: of a server by ``genesis-flow server --metrics``, of a program by these functions.

Nothing of this is loaded by the stores; the package prometheus-client comes with the extra ``metrics``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genesis_flow.metrics.exporter import Exporter

DEFAULT_PORT = 9464
__all__ = ["DEFAULT_PORT", "serve", "start", "textfile", "write_textfile"]


def start() -> None:
    """Count what this process asks of its database from now on. Call it before the first call of a store."""
    from genesis_flow.metrics.program import start_counting

    start_counting()


def serve(
    port: int = DEFAULT_PORT, address: str = "127.0.0.1", *, store_uri: str | None = None
) -> "Exporter":
    """Count, and answer Prometheus at ``http://address:port/metrics`` until ``close()`` or the program's end.

    The state of the database is that of ``store_uri``, or of the store that MLflow is set to.
    """
    from genesis_flow.metrics.program import serve_program

    return serve_program(port, address, store_uri)


def write_textfile(path: "str | PathLike[str]", *, batch: str | None = None) -> None:
    """Write what was counted for the textfile collector of node_exporter: whole, or not at all.

    Each series has the label ``batch``, the name of the file unless given: the collector refuses two files
    with the same series.
    """
    from genesis_flow.metrics.program import write_program

    write_program(path, batch)


@contextmanager
def textfile(path: "str | PathLike[str]", *, batch: str | None = None) -> Iterator[Callable[[], None]]:
    """Count in a block, and write the file at its end, however it ends; what it yields writes it earlier."""
    start()

    def write() -> None:
        write_textfile(path, batch=batch)

    try:
        yield write
    finally:
        write()
