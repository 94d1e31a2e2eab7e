"""The search of runs against MLflow's SQL store, with every plan forced by turns."""

import json
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.metrics.places import PLACE
from genesis_flow.areas.runs import plans
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.runs.filters import parse_filter
from genesis_flow.areas.runs.order import parse_order
from genesis_flow.areas.runs.plans import Question, RunFinder
from genesis_flow.areas.runs.search import RunSearch
from genesis_flow.core.settings import Settings
from genesis_flow.search.order import sort_key
from tests.areas.run_samples import Sample, load_mongo, load_sql, random_samples, run_document
from tests.commands import CommandRecorder
from tests.mongod import Mongod
from tests.sql_schema import make_schema

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RUNS = 60
# How many candidates count as few, and how much a step reads: each pair leads through other plans.
PLANS = [(0, 1), (0, 3), (4, 2), (15, 1000), (2000, 1000)]

TEXT_FIELDS = ["params.p", "params.`q.r`", "params.`s t`", "tags.t", "tags.`u.v`", "tags.`50`", "run_name"]
TEXT_FIELDS += ["status", "user_id", "datasets.name", "datasets.digest", "datasets.context"]
NUMBER_FIELDS = ["metrics.m", "metrics.`n.o`", "metrics.rare", "start_time", "end_time", "created"]
ORDER_FIELDS = ["metrics.m", "metrics.`n.o`", "metrics.none", "params.p", "params.`s t`", "tags.`u.v`"]
ORDER_FIELDS += ["start_time", "end_time", "status", "user_id", "run_name", "run_id", "Created"]


@dataclass
class Both:
    sql: SqlAlchemyStore
    ours: RunSearch
    experiments: list[str]
    samples: list[Sample]


@pytest.fixture(scope="module")
async def both(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Both]:
    folder: Path = tmp_path_factory.mktemp("sql")
    make_schema(folder / "mlflow.db")
    sql = SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))
    samples = random_samples(RUNS, seed=11)
    experiments = load_sql(sql, samples)
    name = f"test_{uuid.uuid4().hex[:12]}"
    ours = RunSearch(Settings.resolve(mongod.database_uri(name)))
    await ours.open()
    await load_mongo(ours.database, samples, experiments)
    yield Both(sql, ours, experiments, samples)
    await ours.close()
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(name)


@pytest.fixture
async def fresh(store_uri: str) -> AsyncIterator[RunSearch]:
    """A search on a fresh database, with a client of its own: stores on one server share theirs."""
    ours = RunSearch(Settings.resolve(f"{store_uri}&appName=fresh"))
    await ours.open()
    yield ours
    await ours.close()


async def search(ours: RunSearch, experiments: list[str], **asked: Any) -> tuple[list[Any], str | None]:
    return await ours._search_runs(
        experiments,
        asked.get("filter_string"),
        asked.get("view", ViewType.ALL),
        asked.get("max_results"),
        asked.get("order_by"),
        asked.get("token"),
    )


async def ids(ours: RunSearch, experiments: list[str], **asked: Any) -> list[str]:
    return [run.info.run_id for run in (await search(ours, experiments, **asked))[0]]


async def paged_ids(ours: RunSearch, experiments: list[str], size: int, **asked: Any) -> list[str]:
    found: list[str] = []
    token = None
    for _ in range(RUNS + 2):
        runs, token = await search(ours, experiments, max_results=size, token=token, **asked)
        found += [run.info.run_id for run in runs]
        if token is None:
            return found
        assert len(runs) == size
    raise AssertionError("the pages do not end")


def sql_ids(both: Both, experiments: list[str], asked: dict[str, Any]) -> list[str]:
    runs, token = both.sql._search_runs(
        experiments, asked.get("filter_string"), asked["view"], None, asked.get("order_by"), None
    )
    assert token is None
    return [run.info.run_id for run in runs]


def clauses() -> st.SearchStrategy[str]:
    text = st.sampled_from(
        ["a", "A", "b.c", "10", "a%", "%b%", "_", "alpha", "FINISHED", "ann", "iris", "train"]
    )
    equal = st.builds("{} {} '{}'".format, st.sampled_from(TEXT_FIELDS), st.sampled_from(["=", "!="]), text)
    like = st.builds(
        "{} {} '{}'".format, st.sampled_from(TEXT_FIELDS), st.sampled_from(["LIKE", "ilike"]), text
    )
    number = st.builds(
        "{} {} {}".format,
        st.sampled_from(NUMBER_FIELDS),
        st.sampled_from([">", ">=", "=", "!=", "<", "<="]),
        st.sampled_from(["-1", "0", "0.5", "2", "3", "5.5"]),
    )
    null = st.builds("{} IS {}NULL".format, st.sampled_from(TEXT_FIELDS[:6]), st.sampled_from(["", "NOT "]))
    listed = st.sampled_from(
        ["datasets.name IN ('iris')", "datasets.context NOT IN ('train', 'x')", "run_id NOT IN ('none')"]
    )
    return st.one_of(equal, like, number, number, null, listed)


def questions() -> st.SearchStrategy[dict[str, Any]]:
    orders = st.lists(
        st.tuples(st.sampled_from(ORDER_FIELDS), st.sampled_from(["", " ASC", " DESC"])),
        max_size=3,
        unique_by=lambda order: order[0].replace("Created", "start_time"),
    )
    return st.fixed_dictionaries(
        {
            "filter_string": st.lists(clauses(), max_size=3).map(" AND ".join),
            "order_by": orders.map(lambda chosen: [field + way for field, way in chosen]),
            "view": st.sampled_from([ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL]),
        }
    )


def force(patch: pytest.MonkeyPatch, few: int, chunk: int) -> None:
    patch.setattr(plans, "FEW", few)
    patch.setattr(plans, "LONG_WALK", 2 * few)
    patch.setattr(plans, "MOST_LOOKUPS", few)
    patch.setattr(plans, "SHARED", few)
    patch.setattr(plans, "CHUNK", chunk)


@pytest.mark.parametrize(("few", "chunk"), PLANS)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=questions(), size=st.integers(1, 25), one=st.booleans())
async def test_finds_what_sql_finds_page_by_page(
    both: Both, few: int, chunk: int, asked: dict[str, Any], size: int, one: bool
) -> None:
    experiments = both.experiments[: 1 if one else 2]
    expected = sql_ids(both, experiments, asked)
    with pytest.MonkeyPatch.context() as patch:
        force(patch, few, chunk)
        assert await ids(both.ours, experiments, **asked) == expected
        assert await paged_ids(both.ours, experiments, size, **asked) == expected


@pytest.mark.parametrize(("few", "chunk"), PLANS)
@pytest.mark.parametrize("order", ["metrics.m", "metrics.m DESC", "start_time", "start_time DESC"])
@pytest.mark.parametrize("clause", ["", "metrics.rare >= 0", "params.p != 'a'", "metrics.m != 0.5"])
async def test_the_orders_of_an_index_page_like_sql(
    both: Both, few: int, chunk: int, order: str, clause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, few, chunk)
    asked = {"filter_string": clause, "order_by": [order], "view": ViewType.ACTIVE_ONLY}
    expected = sql_ids(both, both.experiments, asked)
    assert len(expected) > 10
    for size in (3, 1000):
        assert await paged_ids(both.ours, both.experiments, size, **asked) == expected


async def test_pages_go_on_when_the_plan_changes_between_them(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"filter_string": "params.p != 'b.c'", "order_by": ["metrics.m DESC"], "view": ViewType.ALL}
    found: list[str] = []
    token = None
    for page in range(RUNS):
        monkeypatch.setattr(plans, "FEW", 0 if page % 2 else 2000)
        runs, token = await search(both.ours, both.experiments, max_results=3, token=token, **asked)
        found += [run.info.run_id for run in runs]
        if token is None:
            break
    assert found == sql_ids(both, both.experiments, asked)


async def test_runs_come_whole(both: Both) -> None:
    """Params, tags, latest metrics, inputs and outputs as SQL gives them; infinities stay infinite."""
    asked = {"view": ViewType.ALL, "order_by": ["run_id"]}
    ours, _ = await search(both.ours, both.experiments, **asked)
    theirs, _ = both.sql._search_runs(both.experiments, "", ViewType.ALL, None, ["run_id"], None)
    assert [comparable(run) for run in ours] == [comparable(run) for run in theirs]
    assert any(run.inputs.dataset_inputs for run in ours)
    assert any(value == float("-inf") for run in ours for value in run.data.metrics.values())


def comparable(run: Any) -> dict[str, Any]:
    whole: dict[str, Any] = run.to_dictionary()
    metrics = whole["data"]["metrics"]
    whole["data"]["metrics"] = {
        key: repr(value) if abs(value) < 1e308 else f"infinite {value > 0}" for key, value in metrics.items()
    }
    whole["data"]["metrics"] |= {key: "nan" for key, value in metrics.items() if value != value}
    whole["inputs"]["dataset_inputs"].sort(key=json.dumps)
    return whole


async def test_runs_created_between_pages_hide_and_repeat_nothing(fresh: RunSearch) -> None:
    await load_mongo(fresh.database, [_plain(f"old{number}", start=number) for number in range(9)], ["7"])
    first, token = await search(fresh, ["7"], max_results=4)
    await load_mongo(
        fresh.database, [_plain(f"new{number}", start=50 + number) for number in range(5)], ["7"]
    )
    second, token = await search(fresh, ["7"], max_results=4, token=token)
    third, token = await search(fresh, ["7"], max_results=4, token=token)
    found = [run.info.run_id for run in [*first, *second, *third]]
    assert found == [f"old{number}" for number in range(8, -1, -1)]
    assert token is None


async def test_a_walk_looks_for_few_runs_where_few_that_it_comes_by_match(
    fresh: RunSearch, commands: CommandRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [_plain(f"run{number:03}", start=number) for number in range(200)]
    for number, sample in enumerate(samples):
        sample.metrics = {"m": float(number), "n": float(number % 7), "late": float(number < 100)}
        sample.tags = {"half": str(number % 2), "rare": str(number // 10), "own": str(number)}
    await load_mongo(fresh.database, samples, ["7"])
    force(monkeypatch, 20, 1000)

    async def looks(clause: str, size: int = 5) -> tuple[list[str], list[str]]:
        asked = {"filter_string": clause, "order_by": ["metrics.m DESC"], "max_results": size}
        with commands.recording() as sent:
            found = await ids(fresh, ["7"], **asked)
        (_, waiting), *others = sent
        assert waiting["pipeline"][0]["$match"]["key"] == PLACE
        return found, [
            f"{command.get(name)} {'by id' if command.get('hint') == '_id_' else ''}".strip()
            for name, command in others
        ]

    walk = ["latest_metrics", "runs by id"]
    half = [f"run{number:03}" for number in range(199, 190, -2)]
    assert await looks("tags.half = '1'") == (half, ["runs", *walk, "latest_metrics"])
    # No more than a page: there is no walk.
    page = ["runs", "latest_metrics", "runs by id", "latest_metrics"]
    assert await looks("tags.own = '3'") == (["run003"], page)
    # The runs are read again by id: what is to fall away is not read whole.
    found, sent = await looks("tags.half = '1' and metrics.n > 0", size=4)
    assert found == ["run199", "run197", "run195", "run193"]
    assert sent == ["latest_metrics", "runs", *walk, "latest_metrics", "runs by id", "latest_metrics"]
    # The second read of heads is the last one: the ten runs are found by their tag.
    rare = [f"run{number:03}" for number in range(39, 34, -1)]
    assert await looks("tags.rare = '3'") == (rare, ["runs", *walk, "latest_metrics", *page])
    # Half of what it comes by has the tag, but not the metric: on a long walk it looks as well, once.
    found, sent = await looks("tags.half = '1' and metrics.late > 0")
    assert found == ["run099", "run097", "run095", "run093", "run091"]
    assert sent.count("runs") == 2
    assert sent[-2:] == ["runs by id", "latest_metrics"]


async def test_name_is_filtered_by_its_tag_and_ordered_by_the_run(fresh: RunSearch) -> None:
    one, two = _plain("one", start=1), _plain("two", start=2)
    one.name, two.name = "z", "a"
    one.tags = {"mlflow.runName": "tagged"}
    await load_mongo(fresh.database, [one, two], ["7"])
    assert await ids(fresh, ["7"], filter_string="run_name = 'tagged'") == ["one"]
    assert await ids(fresh, ["7"], filter_string="attributes.`run name` != 'x'") == ["one"]
    assert await ids(fresh, ["7"], order_by=["run_name"]) == ["two", "one"]


async def test_other_workspaces_stay_unseen(fresh: RunSearch) -> None:
    document = run_document(_plain("foreign", start=1), 7) | {"workspace": "elsewhere"}
    await fresh.database.collection(RunFields).insert_one(document)
    await load_mongo(fresh.database, [_plain("mine", start=1)], ["7"])
    for asked in (
        {},
        {"order_by": ["metrics.m"]},
        {"order_by": ["status"]},
        {"filter_string": "status LIKE '%'"},
    ):
        assert await ids(fresh, ["7"], **asked) == ["mine"]


def _plain(run_id: str, start: int) -> Sample:
    return Sample(0, "name", start, None, False, run_id=run_id, artifact_uri="a", metrics={"m": 1.0})


@pytest.mark.parametrize("experiments", [[], ["424242"], [str(2**70)]])
async def test_no_experiment_no_runs(both: Both, experiments: list[str]) -> None:
    assert await search(both.ours, experiments) == ([], None)


async def test_many_experiments(both: Both) -> None:
    """More than MongoDB merges in index order."""
    experiments = [*both.experiments, *(str(number) for number in range(5000, 5300))]
    asked = {"view": ViewType.ACTIVE_ONLY}
    for order in ("start_time", "start_time DESC", "metrics.m", "metrics.m DESC"):
        expected = sql_ids(both, experiments, asked | {"order_by": [order]})
        assert await paged_ids(both.ours, experiments, 7, order_by=[order], **asked) == expected


@pytest.mark.parametrize(
    "asked",
    [
        {"max_results": 0},
        {"max_results": 50_001},
        {"order_by": ["start_time", "attributes.created DESC"]},
        {"order_by": ["metrics.m", "metric.m"]},
        {"order_by": ["nonsense.m"]},
        {"order_by": ["datasets.name"]},
        {"order_by": ["start_time sideways"]},
        {"filter_string": "metrics.m LIKE 'a'"},
        {"filter_string": "params.p > '1'"},
        {"filter_string": "status > 'a'"},
        {"filter_string": "tags.t = 5"},
        {"filter_string": "nonsense"},
        {"filter_string": "metrics.m > 1 OR metrics.m < 0"},
        {"filter_string": "attributes.unknown = 'a'"},
        {"filter_string": "status IN ('RUNNING')"},
    ],
)
async def test_bad_questions_get_mlflows_words(both: Both, asked: dict[str, Any]) -> None:
    with pytest.raises(MlflowException) as theirs:
        both.sql._search_runs(
            both.experiments,
            asked.get("filter_string"),
            ViewType.ALL,
            asked.get("max_results"),
            asked.get("order_by"),
            None,
        )
    with pytest.raises(MlflowException) as ours:
        await search(both.ours, both.experiments, **asked)
    assert ours.value.error_code == theirs.value.error_code
    # MLflow prints sets, whose order changes.
    assert sorted(ours.value.message) == sorted(theirs.value.message)


@pytest.mark.parametrize(
    "asked",
    [
        {"order_by": ["params.`p"]},
        {"order_by": ['tags."x']},
        {"order_by": [None]},
        {"order_by": [7]},
        {"filter_string": f"start_time > {'9' * 5000}"},
        {"filter_string": "params.p = '\ud800'"},
        {"filter_string": "tags.`a\0b` = 'x'"},
        {"filter_string": 5},
    ],
)
async def test_odd_questions_fail_as_bad_values(both: Both, asked: dict[str, Any]) -> None:
    with pytest.raises(MlflowException) as refused:
        await search(both.ours, both.experiments, **asked)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


async def test_a_pattern_may_hold_a_nul(both: Both) -> None:
    assert await ids(both.ours, both.experiments, filter_string="params.p LIKE '%\0%'") == []


async def test_runs_without_start_time_come_last_in_their_order(fresh: RunSearch) -> None:
    """MLflow cannot show such runs, yet imported documents may lack the field; asked of the finder itself."""
    samples = [_plain(f"run{number}", start=0) for number in range(12)]
    for number, sample in enumerate(samples):
        sample.start_time = (None, 1, 2)[number % 3]
        sample.metrics = {"m": float(number % 2)}
    await load_mongo(fresh.database, samples, ["7"])
    runs, heads = (fresh.database.collection(fields) for fields in (RunFields, MetricHeadFields))
    for order_by in ([], ["start_time"], ["metrics.m"], ["metrics.m DESC"], ["status"]):
        order = parse_order(order_by)
        question = Question([7], {"experiment_id": {"$in": [7]}}, parse_filter(None), order)
        finder = RunFinder(runs, heads, question)
        whole = [found.position for found in await finder.first(None, 100)]
        assert whole == sorted(whole, key=lambda position: sort_key(order, position))
        assert {(position[-2], position[-1]) for position in whole} == {
            (sample.start_time, sample.run_id) for sample in samples
        }
        paged: list[Any] = []
        while page := await finder.first(paged[-1] if paged else None, 1):
            paged.append(page[0].position)
        assert paged == whole


@pytest.mark.parametrize(
    "clause",
    [f"start_time < {10**30}", f"start_time > -{10**30}", f"metrics.m < {10**30}", "start_time < 1e300"],
)
async def test_numbers_beyond_64_bits_compare(both: Both, clause: str) -> None:
    assert await ids(both.ours, both.experiments, filter_string=clause)


@pytest.mark.parametrize(
    "position",
    [
        [],
        ["x"],
        [1, 2, "x"],
        ["1", "x"],
        [True, "x"],
        [1.5, "x"],
        [2**64, "x"],
        [1, None],
        [1, ["x"]],
        [{"$gt": 1}, "x"],
    ],
)
async def test_tampered_tokens_are_refused(both: Both, position: list[Any]) -> None:
    _, token = await search(both.ours, both.experiments, max_results=1)
    assert token is not None
    body = json.loads(urlsafe_b64decode(token))
    body["after"] = position
    forged = urlsafe_b64encode(json.dumps(body).encode()).decode()
    with pytest.raises(MlflowException, match="Invalid page token") as refused:
        await search(both.ours, both.experiments, max_results=1, token=forged)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


async def test_a_token_continues_only_its_own_question(both: Both) -> None:
    asked = {"order_by": ["metrics.m"], "max_results": 2}
    _, token = await search(both.ours, both.experiments, **asked)
    others = [asked | {"order_by": ["metrics.m DESC"]}, asked | {"filter_string": "metrics.m > 0"}]
    for other in [*others, asked | {"view": ViewType.ACTIVE_ONLY}]:
        with pytest.raises(MlflowException, match="another search"):
            await search(both.ours, both.experiments, token=token, **other)
    with pytest.raises(MlflowException, match="another search"):
        await search(both.ours, both.experiments[:1], token=token, **asked)
    runs, _ = await search(both.ours, both.experiments[::-1], token=token, **asked)
    assert len(runs) == 2


async def test_an_order_longer_than_mongodb_sorts(both: Both) -> None:
    order = [f"tags.key{number}" for number in range(40)]
    expected = sql_ids(both, both.experiments, {"order_by": order, "view": ViewType.ALL})
    assert await paged_ids(both.ours, both.experiments, 9, order_by=order) == expected
