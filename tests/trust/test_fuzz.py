"""Whatever is asked of a search, the answer is that of MLflow's SQL store, or its error code.

GENESIS_FLOW_FUZZ_CASES says how many cases each search gets, GENESIS_FLOW_FUZZ_SEED which ones.
"""

import os
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pymongo
import pytest
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistry

from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.contract.conftest import ARTIFACT_ROOT, _oracle, clock
from tests.contract.pair import Outcome, Pair, _outcome
from tests.contract.policy import result_differences
from tests.contract.registry import RegistryPair
from tests.contract.scenes import Clock
from tests.mongod import Mongod, unique
from tests.trust.fuzz_grammar import Fuzz
from tests.trust.fuzz_scenes import GRAMMARS, fill_registry, fill_tracking

__all__ = ["clock"]

CASES = int(os.environ.get("GENESIS_FLOW_FUZZ_CASES", "150"))
SEED = os.environ.get("GENESIS_FLOW_FUZZ_SEED", "1")
INVALID = "INVALID_PARAMETER_VALUE"
# docs/differences.md: where SQLite finds nothing, or compares a time with a text.
INTENDED = re.compile("Invalid regular expression|Invalid value of (end_time|execution_time|timestamp)")


@pytest.fixture(scope="module")
def pairs(
    mongod: Mongod, tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> Iterator[dict[str, Pair]]:
    uri = mongod.database_uri(unique("trust_fuzz"))
    with _oracle(tmp_path_factory.mktemp("fuzz")) as oracle:
        tracking = Pair(MongoDBStore(uri, ARTIFACT_ROOT), oracle)
        registry = RegistryPair(MongoDBModelRegistryStore(uri), SqlRegistry(oracle.db_uri))
        with mock.patch("genesis_flow.areas.experiments.methods.get_current_time_millis", clock.read):
            fill_tracking(tracking, clock)
        fill_registry(registry)
        yield {"tracking": tracking, "registry": registry}
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(tracking.ours._settings.database)


def arguments(kind: str, fuzz: Fuzz, size: int) -> tuple[str, str, dict[str, Any]]:
    """The store, the method and a question for it."""
    filter_string, order_by = fuzz.filter(), fuzz.order()
    question: dict[str, Any] = {"filter_string": filter_string, "order_by": order_by, "max_results": size}
    match kind:
        case "runs":
            return (
                "tracking",
                "search_runs",
                question | {"experiment_ids": ["0", "1"], "run_view_type": ViewType.ALL},
            )
        case "experiments":
            return "tracking", "search_experiments", question | {"view_type": ViewType.ALL}
        case "models":
            order = [
                {"field_name": clause.split(" ")[0], "ascending": "DESC" not in clause.upper()}
                for clause in order_by or []
            ]
            return "tracking", "search_logged_models", question | {"experiment_ids": ["0"], "order_by": order}
        case "traces":
            return "tracking", "search_traces", question | {"locations": ["0"]}
        case "datasets":
            return "tracking", "search_datasets", question
        case "registered models":
            return "registry", "search_registered_models", question
        case _:
            return "registry", "search_model_versions", question


def judge(method: str, question: dict[str, Any], ours: Outcome, theirs: Outcome) -> str | None:
    """What is wrong with our answer, in words."""
    if ours.error is not None and not isinstance(ours.error, MlflowException):
        return f"ours is no MLflow error: {ours.error!r}"
    if theirs.error is None and ours.error is None and means_something_else(question["filter_string"] or ""):
        return None
    if theirs.error is None and ours.error is None:
        found = result_differences(method, _page(ours.result), _page(theirs.result))
        return "; ".join(found)[:2000] or None
    if theirs.error is None and INTENDED.search(str(ours.error)):
        return None
    if theirs.error is None:
        return f"theirs found {len(_page(theirs.result))}, ours is {ours.error!r}"
    if theirs.code == INVALID:
        return (
            None if ours.code == INVALID else f"theirs is {theirs.error!r}, ours {ours.code or ours.result}"
        )
    # MLflow's parser or the database slipped: we call the question invalid, or can answer it; or both stores
    # give the code that MLflow gives for a field that the order names twice.
    if ours.code in (INVALID, None) or "duplicate fields" in str(ours.error):
        return None
    return f"theirs slipped ({theirs.error!r}), ours is {ours.error!r}"


def means_something_else(filter_string: str) -> bool:
    """docs/differences.md: SQLite takes NaN for NULL, and its ILIKE knows the case of ASCII letters only."""
    lowered = filter_string.lower()
    return "nan" in lowered or ("ilike" in lowered and not filter_string.isascii())


def identity(entity: Any) -> Any:
    return getattr(entity, "dataset_id", None) or repr(entity)


def _page(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", list(GRAMMARS))
def test_searches_answer_as_the_sql_store_does(pairs: dict[str, Pair], kind: str) -> None:
    fuzz = Fuzz(GRAMMARS[kind], f"{SEED} {kind}")
    wrong, answered = [], 0
    for number in range(CASES):
        store, method, question = arguments(kind, fuzz, size=1000)
        ours, theirs = pairs[store].both(method, **question)
        answered += ours.error is None
        if problem := judge(method, question, ours, theirs):
            wrong.append(f"case {number} of seed {SEED}: {method}({question}):\n    {problem}")
    assert not wrong, f"{len(wrong)} of {CASES}:\n" + "\n".join(wrong[:40])
    assert CASES // 20 < answered < CASES, "neither all nonsense nor all sense"


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", list(GRAMMARS))
def test_tokens_that_nobody_gave_out_are_refused_or_harmless(pairs: dict[str, Pair], kind: str) -> None:
    fuzz = Fuzz(GRAMMARS[kind], f"{SEED} tokens {kind}")
    tried = 0
    for _ in range(CASES * 20):
        store, method, question = arguments(kind, fuzz, size=2)
        search = getattr(pairs[store].ours, method)
        try:
            page = search(**question)
        except MlflowException:
            continue
        token = page[1] if isinstance(page, tuple) else page.token
        if not token:
            continue
        everything = {identity(each) for each in _page(search(**{**question, "max_results": 1000}))}
        forged = fuzz.token(token)
        came = _outcome(search, (), {**question, "page_token": forged})
        assert came.code in (INVALID, None), f"{method}({question}, {forged!r}): {came.error!r}"
        found = set() if came.error else {identity(each) for each in _page(came.result)}
        assert found <= everything, f"{method}({question}, {forged!r})"
        tried += 1
        if tried >= CASES // 3:
            break
    assert tried >= CASES // 3
