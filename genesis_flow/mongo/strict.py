"""Strict input: which text of a call is of which kind. The rules themselves are in ``core/strict.py``.

Every text that is an argument, is in one or is a field of an entity is looked at, of every public call of
every area. Documents are kept as they are: spans, records of datasets, a server's description.
"""

from collections.abc import Mapping, Sequence, Set, ValuesView
from typing import Any

from mlflow.entities import (
    DatasetInput,
    ExperimentTag,
    GatewayEndpointTag,
    InputTag,
    LoggedModelTag,
    Metric,
    RunTag,
    TraceInfo,
    Workspace,
)
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

from genesis_flow.core.strict import Kind, StrictInput
from genesis_flow.mongo.arguments import texts_of

# Every other argument is a name. One that is a list of texts is several of its kind.
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("description", "error", "error_message", "instruction", "message"), Kind.TEXT),
    **dict.fromkeys(("commit_message", "rationale", "root_causes", "categories", "value"), Kind.TEXT),
    **dict.fromkeys(("base_filter", "filter_string", "filter_string1", "filter_string2"), Kind.TEXT),
    **dict.fromkeys(("filters", "order_by"), Kind.TEXT),
    **dict.fromkeys(("page_token", "params", "password", "result", "secret", "serialized_scorer"), Kind.BODY),
    **dict.fromkeys(("profile", "request_preview", "response_preview", "schema", "template"), Kind.BODY),
    **dict.fromkeys(("local_model_path", "run_link", "source", "subpath", "tracking_uri", "url"), Kind.PLACE),
    **dict.fromkeys(("artifact_location", "resolved_trace_archival_location"), Kind.LOCATION),
    **dict.fromkeys(("default_artifact_root", "trace_archival_location"), Kind.LOCATION),
    # A source is a link, but where a model's files are; and of a dataset it is a document.
    "create_model_version.source": Kind.LOCATION,
    "ModelVersion.source": Kind.LOCATION,
    "Dataset.source": Kind.BODY,
}
_TAG_MAPS = ("metadata", "request_metadata", "tags", "trace_metadata")
# Of dictionaries with fields of their own the fields are looked at as if they were arguments.
_FIELD_MAPS = ("skill_definitions",)
_TAGS = (
    *(ExperimentTag, GatewayEndpointTag, InputTag, LoggedModelTag, ModelVersionTag),
    *(RegisteredModelTag, RunTag),
)
# What entities have besides the texts that are always checked to be texts.
_MORE: Mapping[type, tuple[str, ...]] = {
    DatasetInput: ("dataset", "tags"),
    Metric: ("key", "model_id", "dataset_name", "dataset_digest", "run_id"),
    TraceInfo: ("tags", "trace_metadata"),
    Workspace: (
        *("name", "description", "default_artifact_root"),
        *("trace_archival_location", "trace_archival_retention"),
    ),
}


def check_strictly(
    strict: StrictInput, method: str, names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise if a text of a call breaks a rule; the names are those of the method's parameters."""
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if isinstance(given.get("key"), str) and isinstance(given.get("value"), str):
        strict.check_tag("the tag", given["key"], given.pop("value"))
    for name, value in given.items():
        _look(strict, method, name, value)


def kind_of(owner: str, name: str) -> Kind:
    return KINDS.get(f"{owner}.{name}") or KINDS.get(name, Kind.NAME)


def _look(strict: StrictInput, owner: str, name: str, value: Any) -> None:
    if isinstance(value, str):
        if value:
            strict.check(kind_of(owner, name), name, value)
    elif isinstance(value, Mapping):
        _look_into(strict, owner, name, value)
    elif isinstance(value, Sequence | Set | ValuesView) and not isinstance(value, bytes | bytearray):
        for each in value:
            _look(strict, owner, name, each)
    elif isinstance(value, _TAGS):
        if isinstance(value.key, str) and isinstance(value.value, str):
            strict.check_tag("the tag", value.key, value.value)
    else:
        kind: Any = type(value)
        for field in (*texts_of(kind), *_MORE.get(kind, ())):
            _look(strict, kind.__name__, field, getattr(value, field))


def _look_into(strict: StrictInput, owner: str, name: str, value: Mapping[Any, Any]) -> None:
    if name in _TAG_MAPS:
        for key, text in value.items():
            if isinstance(key, str) and isinstance(text, str):
                strict.check_tag(f"the entry of {name}", key, text)
    elif name in _FIELD_MAPS:
        for field, each in value.items():
            _look(strict, owner, str(field), each)
