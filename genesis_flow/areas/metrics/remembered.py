"""Which metrics of a run a store has written, so that the next points take fewer commands.

Other clients write runs and delete them, too, so it is only ever a guess, which the commands that rely on it
check.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

from genesis_flow.core.settings import Settings
from genesis_flow.mongo.operation import Area
from genesis_flow.mongo.scoping import current_workspace

_REMEMBERED = 100_000


@dataclass(slots=True)
class _Run:
    # Whether the run was made by this store.
    is_own: bool
    keys: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        return len(self.keys) + 1


class KnownMetrics:
    """The metrics of the runs that were written last, by workspace: nobody profits from what others wrote.

    The event loop and threads that send what they write themselves ask it and tell it.
    """

    def __init__(self, size: int = _REMEMBERED) -> None:
        self._size = size
        self._runs: OrderedDict[tuple[str, str], _Run] = OrderedDict()
        self._remembered = 0
        self._lock = threading.Lock()

    def begin(self, run_id: str) -> None:
        """A run has just been made, and has no metrics yet."""
        self._put(run_id, _Run(is_own=True))

    def add(self, run_id: str, keys: Collection[str]) -> None:
        """A run has these metrics now."""
        self._put(run_id, _Run(is_own=False), keys)

    def has_all(self, run_id: str, keys: Collection[str]) -> bool:
        """Whether all of these metrics were written."""
        run = self._runs.get((current_workspace(), run_id))
        return run is not None and run.keys.issuperset(keys)

    def has_none(self, run_id: str, keys: Collection[str]) -> bool:
        """Whether none of these metrics was written, though all would be known."""
        run = self._runs.get((current_workspace(), run_id))
        return run is not None and run.is_own and run.keys.isdisjoint(keys)

    def __len__(self) -> int:
        return self._remembered

    def _put(self, run_id: str, new: _Run, keys: Collection[str] = ()) -> None:
        place = (current_workspace(), run_id)
        with self._lock:
            run = self._runs.pop(place, None)
            if run is None:
                run = new
            else:
                self._remembered -= run.size
            run.keys.update(keys)
            self._runs[place] = run
            self._remembered += run.size
            while self._remembered > self._size and len(self._runs) > 1:
                self._remembered -= self._runs.popitem(last=False)[1].size


class MetricMemory(Area):
    """The base of areas that write metrics or make runs: one store is all of them, and remembers for all."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._known_metrics = KnownMetrics()
