"""The contract between the sources of an import, the engine, and the writers.

A source lists *units* and reads one after another; a writer for each kind turns what it reads into
documents. Everything here can be pickled, since units and records travel between processes.

Bodies are plain dicts of JSON-like values with the fields that the table of kinds names, each of them present
(None where the source has none), with ids, names, times (milliseconds), stages and numbers exactly as in the
source. Where a field is not named JSON text, a value is what MLflow's entity holds; tags, params and metadata
are maps from keys to values.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from genesis_flow.importers.kinds import PHASES

Body = dict[str, Any]

# Points in every series of a metric but its last: the same histories then make the same blocks each time.
SERIES_POINTS = 65_536


@dataclass(frozen=True, slots=True)
class Record:
    """One thing of the source. ``id`` is what people call it: the run's id, ``name/version``."""

    kind: str
    id: str
    body: Body
    # The workspace it belongs to, where the source has workspaces.
    workspace: str | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one metric of one run, in the order of the source."""

    run_id: str
    key: str
    timestamps: "array[int]"  # 'q'
    steps: "array[int]"  # 'q'
    values: "array[float]"  # 'd'

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be read, or not be taken over: where it is and why, for people."""

    kind: str
    where: str
    reason: str
    # How much was lost with it: bytes of a file, rows of a table.
    size: int = 0


Item = Record | Series | Problem


@dataclass(frozen=True, slots=True)
class Unit:
    """A bounded piece of work: read, written and journalled as one, and all of it again after a crash.

    ``key`` is the same each time the source is opened. ``payload`` is the source's own, and can be pickled.
    """

    phase: str
    key: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Filters:
    """What of the source is wanted. With experiments, only what belongs to them."""

    experiments: tuple[str, ...] = ()  # ids or names
    since: int | None = None  # milliseconds: what began or changed from then on

    def __bool__(self) -> bool:
        return bool(self.experiments) or self.since is not None


class Source(Protocol):
    """An opened source; reads only, and leaves no trace."""

    name: str  # its canonical URI, without a password: the same source has the same name each time
    # Whether worker processes may open it for themselves; else one process reads, all in one snapshot.
    parallel: bool
    # Whether a thing stays in its unit from one import to the next: then two units with one id are a clash.
    stable_units: bool

    def size(self, filters: Filters) -> int | None:
        """How many units there are, if that is quick to say."""

    def units(self, filters: Filters, phases: Collection[str] = PHASES) -> Iterator[Unit | Problem]:
        """The units of some phases, in the order of PHASES; and what could not even be listed."""

    def fingerprint(self, unit: Unit) -> str | None:
        """Changes whenever the unit does; asked before the unit is read. None: it has to be read to know."""

    def read(self, unit: Unit) -> Iterable[Item]:
        """Parents before what belongs to them: a run before its series, a trace before its spans."""

    def close(self) -> None: ...
