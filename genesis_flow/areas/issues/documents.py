"""Issues."""

from typing import Any

from mlflow.entities.issue import Issue, IssueSeverity, IssueStatus
from pydantic import Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.compat.issues import issue
from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import unescape_map

USUAL_ORDER = [("rank", DESCENDING), ("created_time", DESCENDING), ("_id", DESCENDING)]
# Of two issues as bad, the one that more traces have is first.
COUNT_ORDER = [USUAL_ORDER[0], ("traces", DESCENDING), *USUAL_ORDER[1:]]
# Fields that the short view of an issue leaves out.
LONG_FIELDS = ("description", "root_causes", "metadata")


class IssueFields(Declared):
    """A problem that was found in traces. The traces refer to it by assessments."""

    id: str = Field(alias="_id", description="`iss-…`, drawn or chosen by who made it.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Its experiment.")
    name: str = Field(description="Short name; others may have it too.")
    name_lower: str = Field(description="The name in lower case, by which searches find and sort it.")
    description: str = Field(description="What is wrong.")
    status: str = Field(description="`pending`, `rejected` or `resolved`, which is also their order.")
    severity: str | None = Field(default=None, description="`not_an_issue`, `low`, `medium` or `high`.")
    rank: int = Field(description="The severity as a number, -1 for none.")
    root_causes: list[str] | None = Field(default=None, description="Why it is so.")
    source_run: str | None = Field(default=None, description="The run that found it.")
    categories: list[str] | None = Field(default=None, description="Categories as they were given.")
    category_keys: list[str] = Field(
        default_factory=list, description="The categories in lower case, without blanks around them."
    )
    metadata: dict[str, str] | None = Field(default=None, description="Values by escaped key.")
    created_by: str | None = Field(default=None, description="Who made it.")
    created_time: int = Field(description="When it was made.")
    last_updated_by: str | None = Field(default=None, description="Who changed it last.")
    last_update_time: int = Field(description="When it last changed.")
    last_seen: int = Field(description="When it was last seen in a trace; only ever moves on.")
    call: str | None = Field(
        default=None, description="The call that made it: an id that is taken may be its own."
    )
    traces: int | None = Field(
        default=None, description="How many traces have it, when they were last counted."
    )
    counted: bool | None = Field(
        default=None, description="True while `traces` is right; absent once a reference may have changed."
    )
    changes: int | None = Field(default=None, description="How often changes of its references were marked.")
    changing: list[dict[str, Any]] | None = Field(
        default=None,
        description="Changes of its references that are under way: by which call, and until when at most.",
    )

    class Settings(CollectionSettings):
        name = "issues"
        indexes = [
            Index(
                [("experiment_id", ASCENDING), *USUAL_ORDER],
                name="by_severity",
                serves="The issues of an experiment, the worst first.",
            ),
            Index(
                USUAL_ORDER,
                name="by_severity_anywhere",
                serves="The issues of all experiments, the worst first.",
            ),
            Index(
                [("experiment_id", ASCENDING), *COUNT_ORDER],
                name="by_traces",
                serves="The issues of an experiment, the worst first, and of those the most frequent.",
            ),
            Index(
                COUNT_ORDER,
                name="by_traces_anywhere",
                serves="The issues of all experiments, the worst first, and of those the most frequent.",
            ),
            Index(
                [("counted", ASCENDING), ("experiment_id", ASCENDING)],
                name="uncounted",
                serves="The issues whose traces have to be counted: it holds no `counted` for them.",
            ),
            Index(
                [("source_run", ASCENDING)],
                name="by_source_run",
                sparse=True,
                serves="Issues forget a run that is deleted for good.",
            ),
        ]
        keep_nulls = False
        refers = {"experiment_id": "experiments", "source_run": "runs"}
        goes_with = {"experiment_id": "experiments"}
        forgets = {"source_run": "runs"}
        derived = ("traces", "counted", "changes", "changing")


def rank_of(severity: str | None) -> int:
    return -1 if severity is None else list(IssueSeverity).index(IssueSeverity(severity))


def keys_of(categories: list[str]) -> list[str]:
    """By what searches compare categories."""
    return list(dict.fromkeys(category.strip().lower() for category in categories))


def issue_entity(document: dict[str, Any], trace_count: int | None = None) -> Issue:
    severity, metadata = document.get("severity"), document.get("metadata")
    return issue(
        issue_id=document["_id"],
        experiment_id=str(document["experiment_id"]),
        name=document["name"],
        description=document.get("description", ""),
        status=IssueStatus(document["status"]),
        created_timestamp=int(document["created_time"]),
        last_updated_timestamp=int(document["last_update_time"]),
        severity=None if severity is None else IssueSeverity(severity),
        root_causes=document.get("root_causes"),
        source_run_id=document.get("source_run"),
        categories=document.get("categories"),
        created_by=document.get("created_by"),
        trace_count=trace_count,
        last_seen_timestamp=int(document["last_seen"]),
        last_updated_by=document.get("last_updated_by"),
        metadata=None if metadata is None else unescape_map(metadata),
    )
