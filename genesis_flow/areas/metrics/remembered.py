"""What a store has written of a run, and where its wide steps wait, so that the next take fewer commands.

Other clients write runs and delete them, too, so it is only ever a guess, which the commands that rely on it
check.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

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


class KnownPlace(NamedTuple):
    """A place for wide steps, and which position there each of its metrics has."""

    id: str
    indexes: dict[str, int]


class KnownPlaces:
    """The places of the runs that were written last, by workspace.

    A place only gets more metrics, and its id is given once: a position that is known stays right.
    """

    def __init__(self, size: int = _REMEMBERED) -> None:
        self._size = size
        self._runs: OrderedDict[tuple[str, str], tuple[KnownPlace, ...]] = OrderedDict()
        self._remembered = 0
        self._lock = threading.Lock()

    def having(self, run_id: str, keys: AbstractSet[str]) -> KnownPlace | None:
        """A place of the run that has all of these metrics."""
        for place in self._runs.get((current_workspace(), run_id), ()):
            if place.indexes.keys() >= keys:
                return place
        return None

    def replace(self, run_id: str, places: Iterable[KnownPlace]) -> None:
        """These are the places of the run now, as far as they are known."""
        of_run = (current_workspace(), run_id)
        with self._lock:
            self._remembered -= _size_of(self._runs.pop(of_run, ()))
            self._runs[of_run] = tuple(places)
            self._remembered += _size_of(self._runs[of_run])
            while self._remembered > self._size and len(self._runs) > 1:
                self._remembered -= _size_of(self._runs.popitem(last=False)[1])

    def forget(self, run_id: str) -> None:
        with self._lock:
            self._remembered -= _size_of(self._runs.pop((current_workspace(), run_id), ()))

    def __len__(self) -> int:
        return self._remembered


def _size_of(places: tuple[KnownPlace, ...]) -> int:
    return sum(len(place.indexes) + 1 for place in places)


class MetricMemory(Area):
    """The base of areas that write metrics or make runs: one store is all of them, and remembers for all."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._known_metrics = KnownMetrics()
        self._known_places = KnownPlaces()
