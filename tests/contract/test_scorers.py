"""Scorers and online scoring: the cases S1 to S8, bad input, races of versions, what differs."""

import json
import threading
import uuid
from typing import Any

import pytest
from mlflow.entities import GatewayEndpointModelConfig, GatewayModelLinkageType
from mlflow.exceptions import MlflowException
from pymongo.collection import Collection
from pymongo.database import Database

from tests.contract.pair import Pair
from tests.versions import before_3_18, since_3_18

PLAIN = '{"name":"s",  "call_source":"return 1","call_signature":"(outputs)","original_func_name":"s"}'
ANYTHING = '{"a":1}'
BAD = ("INVALID_PARAMETER_VALUE",) * 2


def judge(model: Any = "openai:/gpt-4", instructions: str = "Is {{ outputs }} good?", **more: Any) -> str:
    data = {"model": model, "instructions": instructions, "feedback_value_type": None}
    return json.dumps(
        {"name": "j", "mlflow_version": "3.17.2", "instructions_judge_pydantic_data": data, **more}
    )


@pytest.fixture
def experiment(pair: Pair) -> str:
    found: str = pair.create_experiment("e")
    return found


class Gateway:
    """Endpoints that both stores know, until the store under test has a gateway of its own."""

    def __init__(self, oracle: Any, collection: Collection[dict[str, Any]]) -> None:
        self.oracle = oracle
        self.collection = collection

    def add(self, name: str) -> str:
        secret = self.oracle.create_gateway_secret(f"secret of {name}", {"api_key": "none"})
        model = self.oracle.create_gateway_model_definition(
            f"model of {name}", secret.secret_id, "openai", "x"
        )
        kind = GatewayEndpointModelConfig(model.model_definition_id, GatewayModelLinkageType.PRIMARY)
        made = self.oracle.create_gateway_endpoint(name, [kind], usage_tracking=False)
        self.collection.insert_one({"_id": made.endpoint_id, "name": name, "workspace": "default"})
        return str(made.endpoint_id)

    def rename(self, endpoint: str, name: str) -> None:
        self.oracle.update_gateway_endpoint(endpoint, name=name)
        self.collection.update_one({"_id": endpoint}, {"$set": {"name": name}})

    def delete(self, endpoint: str) -> None:
        self.oracle.delete_gateway_endpoint(endpoint)
        self.collection.delete_one({"_id": endpoint})


@pytest.fixture
def gateway(pair: Pair, contract_database: Database[dict[str, Any]]) -> Gateway:
    return Gateway(pair.oracle, contract_database["gateway_endpoints"])


@pytest.fixture
def endpoint(gateway: Gateway) -> str:
    """The id of an endpoint that is called `chat`."""
    return gateway.add("chat")


def text_of(version: Any) -> str:
    text: str = version._serialized_scorer
    return text


def texts(pair: Pair, method: str, *arguments: Any) -> list[str]:
    """What both stores tell of serialized scorers, the same."""
    ours, theirs = pair.both(method, *arguments)
    assert ours.error is None, ours
    assert theirs.error is None, theirs
    told = [
        [text_of(each) for each in (found if isinstance(found, list) else [found])]
        for found in (ours.result, theirs.result)
    ]
    assert told[0] == told[1]
    return told[0]


def test_versions(pair: Pair, experiment: str) -> None:
    """S1: register and get give the text back as it was, lists write it anew."""
    for number in (1, 2, 3):
        assert pair.register_scorer(experiment, "s", ANYTHING).scorer_version == number
    pair.register_scorer(experiment, "S", PLAIN)
    pair.register_scorer(experiment, "a.$%", judge())
    assert texts(pair, "get_scorer", experiment, "s") == [ANYTHING]
    assert texts(pair, "get_scorer", experiment, "s", 2) == [ANYTHING]
    assert texts(pair, "list_scorer_versions", experiment, "s") == ['{"a": 1}'] * 3
    assert texts(pair, "list_scorers", experiment)[2] == '{"a": 1}'
    assert [each.scorer_name for each in pair.list_scorers(experiment)] == ["S", "a.$%", "s"]
    assert [each.scorer_version for each in pair.list_scorers(experiment)] == [1, 1, 3]
    assert pair.get_scorer(experiment, "s").scorer_version == 3
    assert pair.get_scorer(experiment, "s", 2).scorer_version == 2
    assert pair.get_scorer(experiment, "s", "2").scorer_version == 2
    assert [each.scorer_version for each in pair.list_scorer_versions(experiment, "s")] == [1, 2, 3]


@pytest.mark.parametrize("name", ["", " ", " b ", None, 5, ["s"], "x" * 300])
def test_names(pair: Pair, experiment: str, name: Any) -> None:
    ours, theirs = pair.both("register_scorer", experiment, name, ANYTHING)
    assert (ours.code, theirs.code) in {(None, None), BAD}


@pytest.mark.parametrize(
    "text",
    [
        judge(""),
        judge(" "),
        judge(5),
        json.dumps({"builtin_scorer_pydantic_data": {"model": ""}}),
        json.dumps({"third_party_scorer_data": {"model": " "}}),
        json.dumps({"memory_augmented_judge_data": {"base_judge": json.loads(judge(""))}}),
    ],
)
def test_bad_models(pair: Pair, experiment: str, text: str) -> None:
    pair.refused("register_scorer", experiment, "s", text)
    assert pair.list_scorers(experiment) == []


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "5", '{"instructions_judge_pydantic_data": "x"}'])
def test_no_scorers(pair: Pair, experiment: str, text: str) -> None:
    """docs/differences.md: a text that is no scorer."""
    ours, theirs = pair.both("register_scorer", experiment, "s", text)
    assert ours.code == "INVALID_PARAMETER_VALUE"
    assert theirs.code != "INVALID_PARAMETER_VALUE"
    assert pair.list_scorers(experiment) == []


def test_experiments(pair: Pair, experiment: str) -> None:
    calls: list[tuple[Any, ...]] = [
        ("register_scorer", "s", ANYTHING),
        ("get_scorer", "s"),
        ("list_scorers",),
        ("list_scorer_versions", "s"),
        ("delete_scorer", "s"),
        ("upsert_online_scoring_config", "s", 0.0),
    ]
    pair.register_scorer(experiment, "s", ANYTHING)
    for method, *rest in calls:
        for other in ("99", "x"):
            pair.refused(method, other, *rest)
    pair.delete_experiment(experiment)
    for method, *rest in calls:
        assert pair.refused(method, experiment, *rest).error_code == "INVALID_PARAMETER_VALUE"


def test_several_experiments(pair: Pair) -> None:
    made = [pair.create_experiment(name) for name in ("a", "b", "c")]
    for experiment in reversed(made):
        for name in ("y", "x"):
            for _ in range(2):
                pair.register_scorer(experiment, name, ANYTHING)
    pair.delete_experiment(made[1])
    found = pair.list_scorers_across_experiments([*reversed(made), "99"])
    assert [(each.experiment_id, each.scorer_name) for each in found] == [
        (experiment, name) for experiment in made for name in ("x", "y")
    ]
    assert pair.list_scorers_across_experiments([]) == []
    pair.refused("list_scorers_across_experiments", ["0", "x"])


def test_unknown(pair: Pair, experiment: str) -> None:
    pair.register_scorer(experiment, "s", ANYTHING)
    for method in ("get_scorer", "list_scorer_versions", "delete_scorer"):
        pair.refused(method, experiment, "other")
    for method in ("get_scorer", "delete_scorer"):
        for version in (0, 2, -1, "x", 2**70):
            pair.both(method, experiment, "s", version)
            assert pair.ours.get_scorer(experiment, "s").scorer_version == 1
        pair.refused(method, experiment, "s", 2)
        pair.refused(method, experiment, "other", 1)
    pair.refused("upsert_online_scoring_config", experiment, "other", 0.5)


def test_deletion(pair: Pair, experiment: str) -> None:
    """S3: the number of the highest version is given out again."""
    for _ in range(3):
        pair.register_scorer(experiment, "s", ANYTHING)
    pair.delete_scorer(experiment, "s", 1)
    assert pair.register_scorer(experiment, "s", ANYTHING).scorer_version == 4
    pair.delete_scorer(experiment, "s", 4)
    pair.delete_scorer(experiment, "s", "3")
    assert pair.register_scorer(experiment, "s", ANYTHING).scorer_version == 3
    pair.delete_scorer(experiment, "s")
    pair.refused("get_scorer", experiment, "s")
    pair.refused("delete_scorer", experiment, "s")
    assert pair.register_scorer(experiment, "s", ANYTHING).scorer_version == 1


def test_a_scorer_without_versions_keeps_its_settings(pair: Pair, experiment: str, endpoint: str) -> None:
    """S4: nobody sees it, but who registers it again finds its id and its online scoring."""
    first = pair.register_scorer(experiment, "s", judge("gateway:/chat"))
    pair.both("upsert_online_scoring_config", experiment, "s", 0.5)
    pair.delete_scorer(experiment, "s", 1)
    for method, *rest in (("get_scorer",), ("get_scorer", 1), ("list_scorer_versions",), ("delete_scorer",)):
        pair.refused(method, experiment, "s", *rest)
    assert pair.list_scorers(experiment) == []
    assert pair.get_active_online_scorers() == []
    ours, theirs = pair.both("upsert_online_scoring_config", experiment, "s", 0.25)
    assert (ours.code, theirs.code) == (None, None)
    again = pair.register_scorer(experiment, "s", judge("gateway:/chat"))
    assert (again.scorer_version, again.scorer_id) == (1, first.scorer_id)
    for store in (pair.ours, pair.oracle):
        (active,) = store.get_active_online_scorers()
        assert active.online_config.sample_rate == 0.25
        store.delete_scorer(experiment, "s")
        assert store.get_online_scoring_configs([first.scorer_id]) == []


def test_endpoints(pair: Pair, experiment: str, gateway: Gateway, endpoint: str) -> None:
    """S2, and names in answers: renamed, a scorer tells the new name; deleted, none."""
    kinds = {
        "judge": judge("gateway:/chat"),
        "builtin": json.dumps({"builtin_scorer_pydantic_data": {"model": "gateway:/chat"}}),
        "third": json.dumps({"third_party_scorer_data": {"model": "gateway:/chat"}}),
        "memory": json.dumps(
            {"memory_augmented_judge_data": {"base_judge": json.loads(judge("gateway:/chat"))}}
        ),
    }
    for name, text in kinds.items():
        assert texts(pair, "register_scorer", experiment, name, text) == [text]
    pair.register_scorer(experiment, "without", ANYTHING)
    stored = pair.ours.get_scorer(experiment, "judge")

    def tell() -> list[str]:
        for name in kinds:
            texts(pair, "get_scorer", experiment, name)
            texts(pair, "list_scorer_versions", experiment, name)
        return texts(pair, "list_scorers", experiment)

    assert all("gateway:/chat" in text for text in tell()[:4])
    gateway.rename(endpoint, "talk")
    assert all("gateway:/talk" in text for text in tell()[:4])
    pair.refused("register_scorer", experiment, "judge", judge("gateway:/chat"))
    pair.refused("register_scorer", experiment, "judge", judge(f"gateway:/{endpoint}"))
    gateway.delete(endpoint)
    assert all('"model": null' in text for text in tell()[:4])
    for text in (judge(f"gateway:/{endpoint}"), ANYTHING):
        scorer = type(stored)(experiment, "judge", 1, text, 1, "id")
        assert texts(pair, "resolve_endpoint_in_scorer", scorer)


def test_bindings(pair: Pair, experiment: str, gateway: Gateway, endpoint: str) -> None:
    """S5: a version without an endpoint leaves the binding of the last one that had one."""
    other = gateway.add("other")
    scorers = gateway.collection.database["scorers"]
    for model, bound in (("openai:/x", None), ("gateway:/chat", endpoint), ("openai:/x", endpoint)):
        pair.register_scorer(experiment, "s", judge(model))
        theirs = [each.endpoint_id for each in pair.oracle.list_endpoint_bindings()]
        found = scorers.find_one({"name": "s"}).get("binding", {}).get("endpoint_id")
        assert theirs == ([] if bound is None else [bound])
        assert found == bound
    pair.register_scorer(experiment, "s", judge("gateway:/other"))
    assert scorers.find_one({"name": "s"})["binding"]["endpoint_id"] == other


def test_online_settings(pair: Pair, experiment: str, endpoint: str) -> None:
    """S6: each change has a new id."""
    made = pair.register_scorer(experiment, "s", judge("gateway:/chat"))
    ids = set()
    for rate, text in ((0.5, None), (1, "status = 'OK'"), (True, ""), (0, None), (0.1, "tags.a = 'b'")):
        ours, theirs = pair.both("upsert_online_scoring_config", experiment, "s", rate, text)
        fields = [
            {key: value for key, value in vars(each.result).items() if key != "online_scoring_config_id"}
            for each in (ours, theirs)
        ]
        assert fields[0] == fields[1]
        assert type(ours.result.sample_rate) is float
        ids.add(ours.result.online_scoring_config_id)
        for store in (pair.ours, pair.oracle):
            (found,) = store.get_online_scoring_configs([made.scorer_id, "none"])
            assert (found.sample_rate, found.filter_string) == (float(rate), text)
    assert len(ids) == 5
    assert all(len(each) == 32 for each in ids)
    assert pair.get_online_scoring_configs([]) == []
    assert pair.get_online_scoring_configs(["none"]) == []
    for rate in (-0.1, 1.1, float("nan"), float("inf"), "0.5", None, [1]):
        pair.refused("upsert_online_scoring_config", experiment, "s", rate)
    for text in ("status", "nonsense = 1", 5):
        pair.refused("upsert_online_scoring_config", experiment, "s", 0.5, text)


def test_who_cannot_score_online(pair: Pair, experiment: str, endpoint: str) -> None:
    """S8: a rate of 0 is allowed for any."""
    unfit = {
        "plain": PLAIN,
        "direct": judge(),
        "expects": judge("gateway:/chat", "Is {{ outputs }} like {{ expectations }}?"),
    }
    for name, text in unfit.items():
        pair.register_scorer(experiment, name, text)
        pair.refused("upsert_online_scoring_config", experiment, name, 0.5)
        assert pair.both("upsert_online_scoring_config", experiment, name, 0)[0].error is None
    # What cannot be read is not held against a scorer.
    pair.register_scorer(
        experiment, "odd", json.dumps({"third_party_scorer_data": {"model": "gateway:/chat"}})
    )
    assert pair.both("upsert_online_scoring_config", experiment, "odd", 0.5)[0].error is None


def active(pair: Pair) -> list[tuple[Any, ...]]:
    """What both stores tell of active scorers, the same but for the order and the ids of settings."""
    told = [
        sorted(
            (each.online_config.experiment_id, each.name, each.scorer_version, each.serialized_scorer)
            for each in store.get_active_online_scorers()
        )
        for store in (pair.ours, pair.oracle)
    ]
    assert told[0] == told[1]
    return told[0]


def test_active_scorers(pair: Pair, experiment: str, gateway: Gateway, endpoint: str) -> None:
    """S2 and S7: deleted experiments still score; what lost its endpoint tells the id."""
    other = pair.create_experiment("other")
    for where, name, rate in (
        (experiment, "a", 0.5),
        (experiment, "b", 0.0),
        (other, "a", 1.0),
        (other, "c", 1),
    ):
        pair.register_scorer(where, name, judge("gateway:/chat"))
        pair.both("upsert_online_scoring_config", where, name, rate)
    pair.register_scorer(experiment, "silent", judge("gateway:/chat"))
    assert [row[:2] for row in active(pair)] == [(experiment, "a"), (other, "a"), (other, "c")]
    pair.register_scorer(other, "c", judge())
    assert [row[:2] for row in active(pair)] == [(experiment, "a"), (other, "a")]
    pair.register_scorer(other, "a", judge("gateway:/chat", "Is {{ outputs }} short?"))
    pair.delete_experiment(other)
    assert [row[2] for row in active(pair)] == [1, 2]
    gateway.rename(endpoint, "talk")
    assert all("gateway:/talk" in row[3] for row in active(pair))
    gateway.delete(endpoint)
    assert all(f"gateway:/{endpoint}" in row[3] for row in active(pair))


@since_3_18
def test_custom_scorers_in_containers(
    pair: Pair, experiment: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = json.loads(PLAIN)
    custom = {
        "fit": PLAIN,
        "empty": json.dumps({**fields, "call_source": " "}),
        "several": json.dumps({"name": "e", "ensemble_scorer_data": {"scorers": [fields]}}),
        "expects": json.dumps({**fields, "call_signature": "(outputs, expectations)"}),
    }
    for name, text in custom.items():
        pair.register_scorer(experiment, name, text)
        pair.refused("upsert_online_scoring_config", experiment, name, 0.5)
    monkeypatch.setenv("MLFLOW_JOB_CUSTOM_SCORER_EXECUTOR_BACKEND", "docker")
    pair.refused("upsert_online_scoring_config", experiment, "fit", 0.5)
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS", "true")
    for name in ("empty", "several", "expects"):
        pair.refused("upsert_online_scoring_config", experiment, name, 0.5)
    assert pair.both("upsert_online_scoring_config", experiment, "fit", 0.5)[0].error is None
    assert [row[1] for row in active(pair)] == ["fit"]
    pair.register_scorer(experiment, "fit", custom["expects"])
    assert active(pair) == []
    pair.delete_scorer(experiment, "fit", 2)
    assert [row[1] for row in active(pair)] == ["fit"]
    monkeypatch.delenv("MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS")
    assert active(pair) == []


@before_3_18
def test_custom_scorers_never_score_online(
    pair: Pair, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_JOB_CUSTOM_SCORER_EXECUTOR_BACKEND", "docker")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS", "true")
    pair.register_scorer(experiment, "s", PLAIN)
    pair.refused("upsert_online_scoring_config", experiment, "s", 0.5)


def test_eight_who_register_at_once(pair: Pair, experiment: str) -> None:
    """docs/differences.md: eight versions and no error, where SQL refuses some with its own text."""
    for name, before in (("new", 0), ("known", 2)):
        for _ in range(before):
            pair.ours.register_scorer(experiment, name, ANYTHING)
        made: list[Any] = []
        start = threading.Barrier(8)

        def register(name: str = name, made: list[Any] = made, start: threading.Barrier = start) -> None:
            start.wait(30)
            try:
                made.append(pair.ours.register_scorer(experiment, name, json.dumps({"by": uuid.uuid4().hex})))
            except MlflowException as error:
                made.append(error)

        threads = [threading.Thread(target=register) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(each.scorer_version for each in made) == [*range(before + 1, before + 9)]
        assert len({each.scorer_id for each in made}) == 1
        kept = {
            each.scorer_version: text_of(each) for each in pair.ours.list_scorer_versions(experiment, name)
        }
        assert [*kept] == [*range(1, before + 9)]
        assert {number: kept[number] for number in kept if number > before} == {
            each.scorer_version: text_of(each) for each in made
        }


def test_hard_deletion_of_an_experiment(pair: Pair, experiment: str) -> None:
    kept = pair.register_scorer("0", "s", ANYTHING)
    gone = pair.register_scorer(experiment, "s", ANYTHING)
    pair.both("upsert_online_scoring_config", "0", "s", 0)
    pair.both("upsert_online_scoring_config", experiment, "s", 0)
    pair.delete_experiment(experiment)
    pair._hard_delete_experiment(experiment)
    for store in (pair.ours, pair.oracle):
        (left,) = store.get_online_scoring_configs([kept.scorer_id, gone.scorer_id])
        assert left.scorer_id == kept.scorer_id
        assert [each.experiment_id for each in store.list_scorers_across_experiments(["0", experiment])] == [
            "0"
        ]
