"""What a store knows of traces because it wrote them last, so that their next spans need not read it.

Any of it may be outdated: other processes change, archive and delete traces. So it is only ever a guess,
which the command that relies on it checks with a condition.
"""

from mlflow.tracing.constant import TraceMetadataKey

from genesis_flow.areas.traces.documents import metadata_path
from genesis_flow.core.settings import Settings
from genesis_flow.documents.plain import Document, value_at
from genesis_flow.mongo.operation import Area
from genesis_flow.mongo.scoping import current_workspace

# Twice as many are kept at most.
_TRACES = 4096

USER = metadata_path(TraceMetadataKey.TRACE_USER)
# Fields that the first to know decides, and nobody else.
TEXTS = ("request_preview", "response_preview", "session_id", USER)
# Fields that decide how new spans change a trace.
STATE = ("experiment_id", "request_time", "status", "spans_location", "finalized", *TEXTS)


def state_of(trace: Document) -> Document:
    """The state of a trace by path; of texts it says that they are there."""
    state = {}
    for path in STATE:
        value = value_at(trace, path)
        if value is not None:
            state[path] = True if path in TEXTS else value
    return state


class KnownTraces:
    """The states of the traces that were written last, by workspace; of them the oldest go, many at once."""

    def __init__(self, size: int = _TRACES) -> None:
        self._size = size
        self._recent: dict[tuple[str, str], Document] = {}
        self._older: dict[tuple[str, str], Document] = {}

    def keep(self, trace_id: str, state: Document) -> None:
        self._recent[current_workspace(), trace_id] = state
        if len(self._recent) >= self._size:
            self._recent, self._older = {}, self._recent

    def get(self, trace_id: str) -> Document | None:
        place = (current_workspace(), trace_id)
        return self._recent.get(place) or self._older.get(place)

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)


class TraceMemory(Area):
    """The base of areas that write traces: one store is all of them, and remembers for all."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._known_traces = KnownTraces()
