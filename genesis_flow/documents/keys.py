"""Keys and ids that are built from what users chose.

Params and tags are fields of a map inside the run, and a query path splits at dots, so a key is escaped
on its way in. The escape is also what the ``params`` and ``tags`` views undo. Ids of child documents join
a run id and a metric key with ``|``, which neither may contain: all children of a run are then one range
of the ``_id`` index.
"""

from numbers import Number

from genesis_flow.core.errors import invalid

SEPARATOR = "|"
_AFTER_SEPARATOR = "}"  # the code point after "|", the open end of a prefix range
# The ids of other blocks go on with hexadecimal digits, which come before it.
_SETTLED = "s"
# A field needs a name; no other key is escaped into this one.
_EMPTY = "%"


def escape(key: object) -> str:
    """A map key that MongoDB can address in a query."""
    text = stored_text(key)
    if text is None:
        raise invalid("A tag, a param or an entry of metadata has no key. Give it one.")
    return text.replace("%", "%25").replace(".", "%2E").replace("$", "%24") or _EMPTY


def unescape(field: str) -> str:
    """The key that ``escape`` made ``field`` from."""
    if "%" not in field:
        return field
    if field == _EMPTY:
        return ""
    return field.replace("%24", "$").replace("%2E", ".").replace("%25", "%")


def stored_text(value: object) -> str | None:
    """A key or value as it is stored: numbers that callers did not turn into text are text."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, Number):
        raise invalid(f"Keys and values of tags, params and metadata must be a text, not {value!r:.100}.")
    return str(value)


def unescape_map(fields: dict[str, str | None] | None) -> dict[str, str | None]:
    # Asked here, and not by a call for each: there are thousands in a page of runs.
    return {unescape(field) if "%" in field else field: value for field, value in (fields or {}).items()}


def head_id(run_id: str, key: str) -> str:
    return f"{run_id}{SEPARATOR}{key}"


def block_id(run_id: str, key: str, suffix: str) -> str:
    return f"{run_id}{SEPARATOR}{key}{SEPARATOR}{suffix}"


def open_block_ids(head: str) -> dict[str, str]:
    """A condition on ``_id``: the blocks of a metric that are named after their content."""
    return {"$gte": f"{head}{SEPARATOR}", "$lt": f"{head}{SEPARATOR}{_SETTLED}"}


def settled_block_ids(head: str) -> dict[str, str]:
    """A condition on ``_id``: the settled blocks of a metric, which sort behind all others."""
    return {"$gte": f"{head}{SEPARATOR}{_SETTLED}", "$lt": f"{head}{_AFTER_SEPARATOR}"}


def settled_block_id(head: str, number: int) -> str:
    return f"{head}{SEPARATOR}{_SETTLED}{number:08x}"


def settled_number(block_id: str) -> int:
    return int(block_id.rpartition(SEPARATOR)[2].removeprefix(_SETTLED), 16)


def is_open(block_id: str) -> bool:
    """Whether a block is named after its content, rather than numbered."""
    return not block_id.rpartition(SEPARATOR)[2].startswith(_SETTLED)


def children_of(prefix: str) -> dict[str, str]:
    """A condition on ``_id``: every id that starts with ``prefix`` and the separator."""
    return {"$gte": f"{prefix}{SEPARATOR}", "$lt": f"{prefix}{_AFTER_SEPARATOR}"}


def span_key(trace_id: str, span_id: str) -> str:
    return f"{trace_id}{SEPARATOR}{span_id}"


def payload_key(span: str, digest: str, piece: int) -> str:
    """``span`` is the key of the span."""
    return f"{span}{SEPARATOR}{digest}{SEPARATOR}{piece:04d}"
