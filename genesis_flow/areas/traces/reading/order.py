"""The order of a search of traces.

The order that the user asked for, then the newest, then the id; missing values come last in both directions.
"""

from collections.abc import Sequence

from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchTraceUtils

from genesis_flow.areas.traces.documents import metadata_path, tag_path
from genesis_flow.areas.traces.reading.filters import DURATION, END
from genesis_flow.areas.traces.usage import NUMBER_FIELDS
from genesis_flow.documents.plain import Document
from genesis_flow.search.memory import LONGEST_PIPELINE_ORDER
from genesis_flow.search.order import Kind, OrderKey
from genesis_flow.search.parsing import parsed

REQUEST_TIME = "request_time"
NEWEST_FIRST = OrderKey(Kind.NUMBER, REQUEST_TIME, ascending=False)

_FIELDS = {
    "experiment_id": (Kind.NUMBER, "experiment_id"),
    "timestamp_ms": (Kind.NUMBER, REQUEST_TIME),
    "execution_time_ms": (Kind.NUMBER, "duration"),
    "end_time_ms": (Kind.NUMBER, "ended"),
    "status": (Kind.TEXT, "status"),
    "request_id": (Kind.TEXT, "_id"),
}
# Fields that are computed before the sort.
COMPUTED: Document = {"duration": DURATION, "ended": END}


def parse_trace_order(order_by: Sequence[str] | None) -> list[OrderKey]:
    """The keys that decide before the id does."""
    keys: list[OrderKey] = []
    seen: set[tuple[str, str]] = set()
    for clause in order_by or []:
        kind, name, ascending = parsed(
            SearchTraceUtils.parse_order_by_for_search_traces, clause, "order_by clause"
        )
        key = _order_key(kind, name, ascending)
        if (kind, name) in seen:
            raise MlflowException(f"`order_by` contains duplicate fields: {list(order_by or [])}")
        seen.add((kind, name))
        keys.append(key)
    if not any(key.field == REQUEST_TIME for key in keys):
        keys.append(NEWEST_FIRST)
    if len(keys) > LONGEST_PIPELINE_ORDER:
        raise MlflowException.invalid_parameter_value(
            f"A search can be ordered by at most {LONGEST_PIPELINE_ORDER} fields, got {len(keys)}."
        )
    return keys


def _order_key(kind: str, name: str, ascending: bool) -> OrderKey:
    if SearchTraceUtils.is_request_metadata(kind, "="):
        if name in NUMBER_FIELDS:
            raise MlflowException.invalid_parameter_value(
                f"Ordering by reserved metadata '{name}' is not supported because it is represented by "
                "multiple columns."
            )
        return OrderKey(Kind.TEXT, metadata_path(name), ascending)
    if SearchTraceUtils.is_attribute(kind, name, "="):
        return OrderKey(*_FIELDS[name], ascending)
    if SearchTraceUtils.is_tag(kind, "="):
        return OrderKey(Kind.TEXT, tag_path(name), ascending)
    raise MlflowException.invalid_parameter_value(f"Invalid identifier type '{kind}'")
