"""A value of a wrong type in the place of every argument of every call: MLflow's code, or a row of the docs.

Whatever is given, the answer is a result or an MlflowException; no error of Python's gets out.
"""

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistry
from mlflow.utils.crypto import KEKManager

from genesis_flow.sync.registry import MongoDBModelRegistryStore
from tests.contract.conftest import contract_database, oracle, pair, session_oracle
from tests.contract.pair import Outcome, Pair, _outcome, _told
from tests.contract.registry import RegistryPair
from tests.scenes import SCENES, Stage, play

__all__ = ["contract_database", "oracle", "pair", "session_oracle"]

WRONG: list[Any] = [None, 4321, {"a": 1}, ["a"], b"a", "x", 1.5, True]
# An operator to MongoDB, or no text at all: docs/differences.md, "Odd questions".
NEVER_PLAIN = (dict, list, bytes)
INVALID = "INVALID_PARAMETER_VALUE"
# What the SQL store says where it did not look: the database or Python did.
SLIPS = {"BAD_REQUEST", "INTERNAL_ERROR", "TypeError", "AttributeError", "ValueError", "Exception"}
ANSWERS = {None, INVALID, "INTERNAL_ERROR", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}
# What ours refuses as invalid and theirs takes: rows of docs/differences.md.
REFUSED = [
    ("create_run", 2, "x"),  # times that are text
    ("update_run_info", 2, "x"),
    ("get_metric_history_bulk", 2, 1.5),  # another argument of a wrong type
    ("get_metric_history_bulk_interval", 2, 1.5),
    ("get_metric_history_bulk_interval", 3, "x"),
    ("get_metric_history_bulk_interval", 4, "x"),
    ("get_metric_history_bulk_interval_from_steps", 3, 1.5),
    ("_search_runs", 3, 1.5),
    ("create_dataset", 0, None),  # a dataset whose name is None
    ("delete_dataset_tag", 1, None),  # None as a key that is to be deleted
    ("delete_logged_model_tag", 1, None),
    ("delete_mcp_server_tag", 1, None),
    ("delete_mcp_server_version_tag", 2, None),
    ("delete_trace_tag", 1, None),
    ("delete_gateway_endpoint_tag", 1, None),
    *(("add_guardrail_to_endpoint", 1, wrong) for wrong in (None, 4321, 1.5, True)),
    ("log_spans", 0, "x"),  # an experiment id that is no number
    ("deprecated_start_trace_v2", 1, "x"),  # times that are text
    ("deprecated_end_trace_v2", 1, "x"),
    ("restore_experiment", 0, None),  # restoring an experiment without naming one
]
# And what ours takes: None as an experiment id in calls that write.
TAKEN = [
    ("delete_experiment_tag", 0, None),
    ("create_issue", 0, None),
    ("upsert_online_scoring_config", 0, None),
]
# The SQL store keeps whatever SQLite takes; a row in docs/differences.md.
STRICT = {
    *("create_review_queue", "create_issue", "update_issue", "create_logged_model", "create_prompt"),
    *("create_registered_model", "create_model_version"),
    *("create_gateway_secret", "create_gateway_model_definition", "update_gateway_model_definition"),
    *("create_gateway_endpoint", "create_endpoint_binding", "create_gateway_guardrail"),
    *("create_budget_policy", "update_budget_policy", "update_endpoint_guardrail_config"),
}
# What they keep then, later calls with the same value meet.
MEETS = {"ALREADY_EXISTS", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}
# True is no version; and theirs finds the binding that it has made of a number, which ours refused to make.
NOT_FOUND = [("get_scorer", 2, True), *(("delete_endpoint_binding", 2, wrong) for wrong in (4321, 1.5, True))]
# Calls that make something of a name, which must be free for the call as it is.
NAMES: dict[str, int | str] = {
    "create_experiment": 0,
    "create_registered_model": 0,
    "create_prompt": 0,
    "rename_experiment": 1,
    "rename_registered_model": 1,
    "copy_model_version": 1,
    "create_label_schema": "name",
    "create_review_queue": "name",
    "create_mcp_server": 0,
    "create_skill": 0,
    "create_gateway_secret": 0,
    "create_gateway_model_definition": 0,
    "create_gateway_endpoint": 0,
    "create_gateway_guardrail": 0,
}
# They would do what the call as it is is about to do: 1.5 and True are the version 1.
OF_THE_VERSION = {"delete_model_version", "delete_prompt_version", "delete_scorer"}
# None as a version means all of them, as an experiment the default one, and as a linkage any.
DOES_IT = [("delete_scorer", 2, None), ("delete_scorer", 0, None), ("detach_model_from_endpoint", 2, None)]


def judge(name: str, place: int | str, wrong: Any, ours: Outcome, theirs: Outcome) -> str | None:
    """What is wrong with our answer, in words."""
    if ours.error is not None and not isinstance(ours.error, MlflowException):
        return f"ours is no MLflow error: {ours.error!r}"
    if ours.code == theirs.code or isinstance(theirs.error, NotImplementedError):
        return None
    case = (name, place, wrong)
    if theirs.code in SLIPS and ours.code in ANSWERS:
        return None
    if ours.code == INVALID and (isinstance(wrong, NEVER_PLAIN) or case in REFUSED):
        return None
    if (ours.code in (None, "RESOURCE_DOES_NOT_EXIST") and case in TAKEN) or case in NOT_FOUND:
        return None
    if ours.code == INVALID and name in STRICT and (theirs.code is None or theirs.code in MEETS):
        return None
    return f"ours is {ours.error or ours.result!r}, theirs {theirs.error or theirs.result!r}"


class Mistaker:
    """Makes each call with each wrong value in each place, in both stores, and then as it is."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.tried = 0
        self.wrong: list[str] = []
        self._their_ids: dict[str, str] = {}
        self._tried_before: set[tuple[str, int, frozenset[str]]] = set()

    async def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self.pair.oracle, name):
            return getattr(self.pair.ours, name)(*args, **kwargs)
        form = (name, len(args), frozenset(kwargs))
        for place in (*range(len(args)), *kwargs) if form not in self._tried_before else ():
            for wrong in WRONG:
                does_it = name in OF_THE_VERSION and wrong in (1.5, True)
                if not does_it and (name, place, wrong) not in DOES_IT:
                    self._mistake(name, place, wrong, list(args), dict(kwargs))
        self._tried_before.add(form)
        ours, theirs = self._play(name, list(args), kwargs)
        if ours.error is not None:
            raise ours.error
        if name == "create_experiment":
            self._their_ids[ours.result] = theirs.result
        if name == "deprecated_start_trace_v2":
            self._their_ids[ours.result.request_id] = theirs.result.request_id
        return ours.result

    def _mistake(self, name: str, place: int | str, wrong: Any, args: list[Any], kwargs: Any) -> None:
        if name in NAMES and place != NAMES[name]:
            named: Any = args if isinstance(NAMES[name], int) else kwargs
            named[NAMES[name]] += str(self.tried)
        if name == "rename_registered_model" and place == 1 and isinstance(wrong, str | float | int):
            return  # it would be renamed
        (args if isinstance(place, int) else kwargs)[place] = wrong
        ours, theirs = self._play(name, args, kwargs)
        self.tried += 1
        if problem := judge(name, place, wrong, ours, theirs):
            self.wrong.append(f"{name} with {wrong!r} as {place}: {problem:.400}")

    def _play(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> tuple[Outcome, Outcome]:
        ours = _outcome(getattr(self.pair.ours, name), args, kwargs)
        with _told(ours.result):
            their_args = [self._theirs(given) for given in args]
            theirs = _outcome(getattr(self.pair.oracle, name), their_args, kwargs)
        return ours, theirs

    def _theirs(self, value: Any) -> Any:
        """The id that the oracle gave what has this one."""
        if isinstance(value, list):
            return [self._theirs(each) for each in value]
        return self._their_ids.get(value, value) if isinstance(value, str) else value


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_every_wrong_argument_gets_mlflows_answer(pair: Pair, tmp_path: Path) -> None:
    registry = RegistryPair(MongoDBModelRegistryStore(pair.ours.db_uri), SqlRegistry(pair.oracle.db_uri))
    tracking, models = Mistaker(pair), Mistaker(registry)
    areas = [area for area in SCENES if area != "webhooks"]
    # They derive their key anew for each call that needs it, which takes a fifth of a second.
    with mock.patch("mlflow.store.tracking.gateway.sqlalchemy_mixin.KEKManager", return_value=KEKManager()):
        asyncio.run(play(Stage(tracking, models, tmp_path), *areas))
    wrong = [*tracking.wrong, *models.wrong]
    assert not wrong, f"{len(wrong)} of {tracking.tried + models.tried}:\n" + "\n".join(wrong)
    assert tracking.tried > 1000
    assert models.tried > 300
