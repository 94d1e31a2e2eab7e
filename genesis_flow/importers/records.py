"""The contract between the sources of an import, the engine, and the writers.

A source lists *units* and reads one after another; a writer for each kind turns what it reads into
documents. Everything here can be pickled, since units and records travel between processes.

Bodies are plain dicts of JSON-like values with the fields of ``FIELDS``, each of them present (None where
the source has none), with ids, names, times (milliseconds), stages and numbers exactly as in the source.
Where a field is not named JSON text, a value is what MLflow's entity holds.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from genesis_flow.importers.kinds import PHASES, PLAIN

Body = dict[str, Any]

# Points in every series of a metric but its last: the same histories then make the same blocks each time.
SERIES_POINTS = 65_536

FIELDS: dict[str, tuple[str, ...]] = {
    # tags: {key: value}; experiment_id is text everywhere.
    "experiment": (
        "experiment_id",
        "name",
        "artifact_location",
        "lifecycle_stage",
        "creation_time",
        "last_update_time",
        "tags",
    ),
    # A dataset of an experiment, whether runs used it or not; the runs that used it name it in their inputs.
    # contexts: the values of the tag mlflow.data.context under which runs used it (None: without one); may
    # be empty, since the inputs of runs add theirs.
    "dataset": (
        "experiment_id",
        "name",
        "digest",
        "source_type",
        "source",
        "schema",
        "profile",
        "contexts",
    ),
    # status: RUNNING, FINISHED ...; params, tags: {key: value}; model_inputs: [model_id];
    # model_outputs: [[model_id, step]]; inputs: [{name, digest, tags: [[key, value]]}], whose datasets are
    # records of their own, in this unit or another.
    # The points of its metrics follow as Series.
    "run": (
        "run_id",
        "experiment_id",
        "name",
        "user_id",
        "status",
        "start_time",
        "end_time",
        "lifecycle_stage",
        "deleted_time",
        "artifact_uri",
        "params",
        "tags",
        "inputs",
        "model_inputs",
        "model_outputs",
    ),
    # status: MLflow's number (LoggedModelStatus.to_int); params, tags: {key: value};
    # metrics: [{run_id, key, value, timestamp, step, dataset_name, dataset_digest}].
    "logged_model": (
        "model_id",
        "experiment_id",
        "name",
        "artifact_location",
        "creation_timestamp",
        "last_updated_timestamp",
        "status",
        "status_message",
        "lifecycle_stage",
        "model_type",
        "source_run_id",
        "params",
        "tags",
        "metrics",
    ),
    # state: OK, ERROR, IN_PROGRESS, STATE_UNSPECIFIED; times in milliseconds; tags, metadata: {key: value};
    # linked_runs: [run_id]; linked_prompts: ["name/version"]. Its spans and assessments follow in its unit.
    "trace": (
        "trace_id",
        "experiment_id",
        "request_time",
        "execution_duration",
        "state",
        "client_request_id",
        "request_preview",
        "response_preview",
        "tags",
        "metadata",
        "linked_runs",
        "linked_prompts",
    ),
    # content: the JSON text of Span.to_dict(), None where it has gone to an archive; the rest as MLflow's
    # table of spans has it (nanoseconds). model_name, model_provider, cost ({input_cost, ...}): what the
    # source knows beside the content.
    "span": (
        "trace_id",
        "span_id",
        "parent_span_id",
        "name",
        "type",
        "status",
        "start_time_unix_nano",
        "end_time_unix_nano",
        "content",
        "model_name",
        "model_provider",
        "cost",
    ),
    # kind: feedback, expectation or issue; value, error, metadata: JSON text or None.
    "assessment": (
        "assessment_id",
        "trace_id",
        "kind",
        "name",
        "value",
        "error",
        "create_time",
        "last_update_time",
        "source_type",
        "source_id",
        "run_id",
        "span_id",
        "rationale",
        "overrides",
        "valid",
        "metadata",
    ),
    # schema, profile: JSON text; tags: {key: value}. Its records and associations follow in its unit.
    "evaluation_dataset": (
        "dataset_id",
        "name",
        "digest",
        "schema",
        "profile",
        "created_time",
        "last_update_time",
        "created_by",
        "last_updated_by",
        "tags",
    ),
    # inputs, outputs, expectations, tags, source: JSON text or None.
    "evaluation_record": (
        "record_id",
        "dataset_id",
        "inputs",
        "outputs",
        "expectations",
        "tags",
        "source",
        "source_id",
        "source_type",
        "created_time",
        "last_update_time",
        "created_by",
        "last_updated_by",
    ),
    "entity_association": (
        "source_type",
        "source_id",
        "destination_type",
        "destination_id",
        "created_time",
    ),
    # Prompts are registered models with MLflow's tag. tags: {key: value}; aliases: {alias: version};
    # stages: {version: stage} of the versions that have one; last_version: the highest number given out,
    # deleted versions included where the source knows it. Its versions follow in its unit.
    "registered_model": (
        "name",
        "description",
        "creation_time",
        "last_updated_time",
        "tags",
        "aliases",
        "stages",
        "last_version",
    ),
    "model_version": (
        "name",
        "version",
        "creation_time",
        "last_updated_time",
        "description",
        "user_id",
        "source",
        "storage_location",
        "run_id",
        "run_link",
        "model_id",
        "status",
        "status_message",
        "tags",
    ),
    # events: ["registered_model.created"]; secret: as the source keeps it, encrypted.
    "webhook": (
        "webhook_id",
        "name",
        "url",
        "description",
        "status",
        "events",
        "secret",
        "creation_time",
        "last_updated_time",
    ),
    # id: what people call it, as the record's. Values as the letters of their columns say.
    **{name: kind.body for name, kind in PLAIN.items()},
}


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
