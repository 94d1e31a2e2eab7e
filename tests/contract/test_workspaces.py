"""Nothing of a workspace is seen, changed or taken from another one: every call of every store tries it.

The scenes are played in one workspace. Each of their calls is made from another one, too: before it, so that
it finds what the scene is about to change, or behind it if it makes something. MLflow's workspace-aware SQL
stores say what is to be answered, and the database must be what it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow.entities import Metric, ViewType
from mlflow.entities.trace_info_v2 import TraceInfoV2
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.exceptions import MlflowException
from mlflow.store.jobs.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyJobStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import (
    WorkspaceAwareSqlAlchemyStore as SqlRegistry,
)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore as SqlTracking
from mlflow.utils.workspace_context import ServerWorkspaceContext
from pymongo.database import Database

from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.stores.areas import AREAS
from genesis_flow.sync.jobs import MongoDBJobStore
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.contract import policy
from tests.contract.conftest import ARTIFACT_ROOT
from tests.contract.pair import Outcome, Pair
from tests.contract.policy import result_differences
from tests.contract.registry import RegistryPair
from tests.contract.trace_scenes import STARTED, span, stated
from tests.emptied import empty
from tests.mongod import Mongod
from tests.scenes import Stage, play
from tests.scenes.stage import ONE
from tests.trust.test_scenes import PLAYED, methods

OWN, FOREIGN = "default", "team-b"

NAMES = {area.name: {name for part in area.tracking for name in vars(part)} for area in AREAS}
JOBS = NAMES["jobs"]

# Calls that make something: what they make may be there already when another workspace asks for the same.
MAKING = ("create_", "start_", "log_spans", "register_", "record_", "deprecated_start", "upsert_", "add_")

# Of all workspaces or of none on purpose.
SHARED = {"counters", "scheduler_leases", "schema_migrations", "schema_lock"}

# What is answered from another workspace where MLflow's store has no such call, or does not ask for the
# workspace, so that ours must not answer the same. An error's code, or the result.
OURS_ALONE: dict[str, Any] = {
    "_hard_delete_logged_model": "RESOURCE_DOES_NOT_EXIST",
    "list_scorers_across_experiments": [],
    "unlink_traces_from_run": None,
    "_fold_wide_steps": "RESOURCE_DOES_NOT_EXIST",
    "lock_job_key": "RESOURCE_DOES_NOT_EXIST",
    "unlock_job_key": None,
    "list_lost_jobs": [],
    "take_over_job": "RESOURCE_DOES_NOT_EXIST",
    "_resolve_gateway_endpoint": "RESOURCE_DOES_NOT_EXIST",
    "link_mcp_server_versions_to_trace": "RESOURCE_DOES_NOT_EXIST",
    "get_mcp_server_versions_for_trace": "RESOURCE_DOES_NOT_EXIST",
    "test_webhook": "RESOURCE_DOES_NOT_EXIST",
}
# Calls of the server itself, for all workspaces.
FOR_ALL = {
    *("take_scheduler_lease", "renew_scheduler_lease"),
    *("list_budget_policies_across_workspaces", "_gateway_budget_windows"),
    *("_count_gateway_cost", "_exceeded_gateway_budget"),
    *("list_workspaces", "get_workspace", "create_workspace", "update_workspace", "delete_workspace"),
    "_workspace_settings",
    *NAMES["users"],
}

_CLOCK = policy.Exemption(policy.Rule.CLOSE_TIME, "each store reads its clock")
policy.FIELDS |= {("Job", field): _CLOCK for field in ("creation_time", "last_update_time")}


class TrackingPair(Pair):
    """Also maps the ids of traces that each store draws."""

    def _remember_tokens(self, ours: Any, theirs: Any) -> None:
        super()._remember_tokens(ours, theirs)
        if isinstance(ours, TraceInfoV2) and isinstance(theirs, TraceInfoV2):
            self._their_tokens[ours.request_id] = theirs.request_id


@dataclass
class Watch:
    """What is in the database, but for what the other workspace has made."""

    database: Database[dict[str, Any]]
    hashes: dict[str, str] = field(default_factory=dict)
    documents: dict[str, dict[Any, Any]] = field(default_factory=dict)
    roots: set[str] = field(default_factory=set)

    def look(self) -> list[str]:
        """What is not as it was at the last look, in words."""
        found = self.database.command("dbHash")["collections"]
        changed = [name for name, each in found.items() if self.hashes.get(name) != each]
        self.hashes = found
        told = []
        for name in sorted(set(changed) - SHARED):
            now = {repr(each["_id"]): each for each in self.database[name].find() if self.is_own(each)}
            before = self.documents.get(name, {})
            ids = before.keys() | now.keys()
            told += [f"{name} {each}" for each in ids if before.get(each) != now.get(each)]
            self.documents[name] = now
            self.roots |= {str(each["_id"]) for each in now.values() if "workspace" in each}
        return told

    def is_own(self, document: dict[str, Any]) -> bool:
        """Children have no workspace: they are of what their id begins with."""
        if "workspace" in document:
            return bool(document["workspace"] == OWN)
        first, *rest = str(document["_id"]).split(SEPARATOR)
        return FOREIGN not in (first, *rest[:1]) and (
            first in self.roots or repr(document["_id"]) in self.known()
        )

    def known(self) -> set[Any]:
        return {each for documents in self.documents.values() for each in documents}


@dataclass
class Trial:
    """Makes each call in its own workspace and in another one, in both stores."""

    tracking: Pair
    registry: Pair
    jobs: Pair
    watch: Watch
    uri: str
    called: set[tuple[str, str]] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    async def track(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        self.called.add(("tracking", name))
        return self.call(self.jobs if name in JOBS else self.tracking, name, args, kwargs)

    async def register(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        self.called.add(("registry", name))
        return self.call(self.registry, name, args, kwargs)

    def call(self, pair: Pair, name: str, args: Any, kwargs: Any) -> Any:
        makes = name.startswith(MAKING)
        if not makes and name not in FOR_ALL:
            self.intrude(pair, name, args, kwargs)
        with ServerWorkspaceContext(OWN):
            ours, theirs = _both(pair, name, args, kwargs)
        if theirs is not None and ours.code != theirs.code:
            self.wrong.append(f"{name}{args}{kwargs} in its own workspace: {ours}, theirs {theirs}")
        self.watch.look()
        if makes and name not in FOR_ALL:
            self.intrude(pair, name, args, kwargs)
        if ours.error is not None:
            raise ours.error
        return ours.result

    def intrude(self, pair: Pair, name: str, args: Any, kwargs: Any) -> None:
        """That call from the other workspace."""
        with ServerWorkspaceContext(FOREIGN):
            ours, theirs = _both(pair, name, args, kwargs, alone=name in OURS_ALONE)
        call = f"{name}{args}{kwargs} from another workspace"
        if changed := self.watch.look():
            self.wrong.append(f"{call} changed {changed}")
        if theirs is None:
            if OURS_ALONE.get(name, "nobody says what") != (ours.code or ours.result):
                self.wrong.append(f"{call} came to {ours}")
        elif ours.code != theirs.code:
            self.wrong.append(f"{call}: {ours}, theirs {theirs}")
        elif ours.error is None and not name.startswith(MAKING):
            self.wrong += [f"{call}: {each}" for each in result_differences(name, ours.result, theirs.result)]


def _both(
    pair: Pair, name: str, args: Any, kwargs: Any, alone: bool = False
) -> tuple[Outcome, Outcome | None]:
    if hasattr(pair.oracle, name) and not alone:
        ours, theirs = (
            each._replace(result=_listed(each.result)) for each in pair.both(name, *args, **kwargs)
        )
        return ours, None if isinstance(theirs.error, NotImplementedError) else theirs
    try:
        return Outcome(getattr(pair.ours, name)(*args, **kwargs), None), None
    except MlflowException as error:
        return Outcome(None, error), None


def _listed(result: Any) -> Any:
    return list(result) if isinstance(result, Iterator) else result


@pytest.fixture
def trial(
    contract_database: Database[dict[str, Any]],
    mongod: Mongod,
    oracle: SqlAlchemyStore,
    monkeypatch: pytest.MonkeyPatch,
) -> Trial:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    monkeypatch.setenv("GENESIS_FLOW_ARTIFACT_ROOT", ARTIFACT_ROOT)  # for the store that links prompts
    empty(contract_database)
    with oracle.ManagedSessionMaker(read_only=False) as session:
        session.execute(sqlalchemy.text("DELETE FROM experiments"))  # the store makes its own, elsewhere
    ours, theirs = mongod.database_uri(contract_database.name), oracle.db_uri
    return Trial(
        TrackingPair(MongoDBStore(ours, ARTIFACT_ROOT), SqlTracking(theirs, ARTIFACT_ROOT)),
        RegistryPair(MongoDBModelRegistryStore(ours), SqlRegistry(theirs)),
        Pair(MongoDBJobStore(ours), WorkspaceAwareSqlAlchemyJobStore(theirs)),
        Watch(contract_database),
        ours,
    )


@pytest.mark.timeout(400)
async def test_no_call_reaches_another_workspace(trial: Trial, tmp_path: Path) -> None:
    stage = Stage(trial.track, trial.register, tmp_path, linked_uri=trial.uri)
    await play(stage)
    assert trial.called == {method for area in PLAYED for method in methods(area)}
    await probes(trial, stage)
    assert trial.wrong == [], "\n".join(trial.wrong)


async def probes(trial: Trial, stage: Stage) -> None:
    """What scenes do not ask: by other ways to the same things, and with a place of the intruder's own."""
    call, tracking = trial.track, trial.tracking
    points = [Metric("many", float(step), STARTED + step, step) for step in range(200)]
    run, experiment = stage["run"], stage["experiment"]
    await call("log_batch", run, points, [], [])
    await call("log_batch", run, points[:1], [], [])
    assert await call("get_metric_history", run, "many")
    assert await call("get_metric_history_bulk_interval", [run], "many", 10, None, None)
    assert await call("search_runs", [experiment], "metrics.many > 0", ViewType.ALL)
    assert await call("search_traces", ["0"], "span.name = 'again'")
    counted = [MetricAggregation(AggregationType.COUNT)]
    for view, name in (
        (MetricViewType.SPANS, "span_count"),
        (MetricViewType.ASSESSMENTS, "assessment_count"),
    ):
        [point] = await call("query_trace_metrics", ["0"], view, name, counted)
        assert point.values["COUNT"] > 0
    with ServerWorkspaceContext(FOREIGN):
        place = tracking.create_experiment("a place of its own")
        their_run = tracking.create_run(place, "me", STARTED, [], "theirs").info.run_id
    trial.intrude(tracking, "link_traces_to_run", ([ONE], their_run), {})
    theirs = [span(ONE, 1, name="theirs"), span(ONE, 99)]
    for name, args in (
        ("log_spans", (place, theirs)),
        ("start_trace", (stated(ONE, place, tags={"t": "1"}),)),
    ):
        with (
            ServerWorkspaceContext(FOREIGN),
            pytest.raises(MlflowException, match="exists in another") as refused,
        ):
            getattr(tracking.ours, name)(*args)
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
        assert trial.watch.look() == []
