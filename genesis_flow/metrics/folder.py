"""What the processes of a server have counted, in the files of one folder, and what the dead have left there.

Each process writes files with its number in the name. A server that runs jobs starts many processes, so what
one that is gone has counted is added to one file of all that are, and what it only was (the requests in
flight, its connections) ends with it.
"""

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

PREFIX = "genesis_flow_"
_SWEPT = "swept"
_CAN_ASK = hasattr(os, "killpg")  # where signal 0 only asks


class Folder(Collector):
    """Sums over processes. Metrics of other packages in these processes, and their labels, are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            self._sweep()
            # A file is there before it has a length.
            files = [str(file) for file in self._path.glob("*.db") if file.stat().st_size]
            found = MultiProcessCollector.merge(files)
        yield from (each for each in found if each.name.startswith(PREFIX))

    def processes(self) -> set[int]:
        """Those that have counted something and live."""
        return {pid for file in self._path.glob("*.db") if (pid := _process(file)) and _lives(pid)}

    def sweep(self) -> None:
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        dead = [file for file in self._path.glob("*.db") if (pid := _process(file)) and not _lives(pid)]
        for file in dead:
            kind = file.name.split("_")[0]
            if kind != "gauge":
                self._add(file, self._path / f"{kind}_{_SWEPT}.db")
            file.unlink()

    def _add(self, file: Path, total: Path) -> None:
        try:
            left = [*MmapedDict.read_all_values_from_file(str(file))]
        except (struct.error, RuntimeError, UnicodeDecodeError):  # it died while it made the file
            return
        sums = MmapedDict(str(total))
        try:
            for key, value, time, _ in left:
                sums.write_value(key, sums.read_value(key)[0] + value, time)
        finally:
            sums.close()


def _process(file: Path) -> int | None:
    last = file.stem.rsplit("_", 1)[-1]
    return int(last) if last.isdigit() else None


def _lives(pid: int) -> bool:
    if not _CAN_ASK:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's: the number was given away
        return False
    return True
