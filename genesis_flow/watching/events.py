"""What a watcher is told: frozen events, each with the token behind which a watch goes on."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from genesis_flow.documents.keys import unescape
from genesis_flow.documents.plain import Document

PARAMS, TAGS = "params.", "tags."
_PLAIN = ("status", "name", "user_id", "start_time", "end_time", "lifecycle_stage")


class Point(NamedTuple):
    """A point of a metric."""

    timestamp: int
    step: int
    value: float


@dataclass(frozen=True)
class Event:
    """What all events have."""

    kind: ClassVar[str]

    run_id: str
    # Made when it is asked for: the token of a watch of many metrics is long.
    _token: Callable[[], str | None] = field(repr=False, compare=False, kw_only=True)

    @property
    def token(self) -> str | None:
        """Where a watch goes on behind this event; None if the server keeps no history of changes."""
        return self._token()

    def to_json(self, *, with_token: bool = True) -> dict[str, Any]:
        """As JSON has it; words for the numbers that it lacks."""
        shown = {
            each.name: _sayable(getattr(self, each.name))
            for each in fields(self)
            if not each.name.startswith("_")
        }
        return {"event": self.kind, **shown, **({"token": self.token} if with_token else {})}


@dataclass(frozen=True)
class _WholeRun(Event):
    experiment_id: str
    name: str | None
    status: str
    lifecycle_stage: str
    start_time: int | None
    end_time: int | None
    user_id: str | None
    params: Mapping[str, str | None]
    tags: Mapping[str, str | None]


@dataclass(frozen=True)
class RunFound(_WholeRun):
    """A run that was there when the watch began, or came with its metrics, as imported ones do."""

    kind = "run_found"


@dataclass(frozen=True)
class RunCreated(_WholeRun):
    """A run that was made since."""

    kind = "run_created"


@dataclass(frozen=True)
class RunChanged(Event):
    """What changed about a run; what is None or empty did not."""

    kind = "run_changed"

    name: str | None = None
    status: str | None = None
    lifecycle_stage: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    user_id: str | None = None
    params: Mapping[str, str | None] = field(default_factory=dict)
    tags: Mapping[str, str | None] = field(default_factory=dict)
    removed_tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunDeleted(Event):
    """A run that was deleted for good, or left the workspace; one that can be restored has only changed."""

    kind = "run_deleted"


@dataclass(frozen=True)
class MetricLogged(Event):
    """Points that a metric got, in the order in which they are stored."""

    kind = "metric_logged"

    key: str
    points: tuple[Point, ...]


def whole(made: type[_WholeRun], run: Document, token: Callable[[], str | None]) -> _WholeRun:
    """The event of a whole run, of its document."""
    return made(
        run_id=run["_id"],
        experiment_id=str(run["experiment_id"]),
        name=run.get("name"),
        status=run["status"],
        lifecycle_stage=run["lifecycle_stage"],
        start_time=run.get("start_time"),
        end_time=run.get("end_time"),
        user_id=run.get("user_id"),
        params={unescape(key): value for key, value in (run.get("params") or {}).items()},
        tags={unescape(key): value for key, value in (run.get("tags") or {}).items()},
        _token=token,
    )


def flat(run: Document) -> Document:
    """The fields of a run that events tell of, by the path that an update names."""
    return {
        **{name: run[name] for name in _PLAIN if name in run},
        **{PARAMS + key: value for key, value in (run.get("params") or {}).items()},
        **{TAGS + key: value for key, value in (run.get("tags") or {}).items()},
    }


def changed(
    run_id: str, new: Document, removed: list[str], token: Callable[[], str | None]
) -> RunChanged | None:
    """The event of fields of a run that are new, by path; None if it would tell nothing."""
    told = flat(new)
    told.update({path: value for path, value in new.items() if path.startswith((PARAMS, TAGS))})
    gone = tuple(unescape(path.removeprefix(TAGS)) for path in removed if path.startswith(TAGS))
    if not told and not gone:
        return None
    return RunChanged(
        run_id=run_id,
        **{name: told[name] for name in _PLAIN if name in told},
        params=_below(PARAMS, told),
        tags=_below(TAGS, told),
        removed_tags=gone,
        _token=token,
    )


def _below(prefix: str, told: Document) -> dict[str, str | None]:
    return {
        unescape(path.removeprefix(prefix)): value for path, value in told.items() if path.startswith(prefix)
    }


def _sayable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sayable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_sayable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
