"""Searches of registered models and versions: filters, orders, pages."""

import pytest
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

from tests.contract.registry import RegistryPair, differs, filled_registry

__all__ = ["filled_registry"]

LONG = "long " * 500
NAMES = ["Alpha", "alpha", "beta_1", "beta%1", "betaX1", "gamma'q", "ünï", "z" * 40]


@pytest.fixture(scope="module")
def filled(filled_registry: RegistryPair) -> RegistryPair:
    pair = filled_registry
    for position, name in enumerate(NAMES):
        tags = [RegisteredModelTag("i", str(position)), RegisteredModelTag("parity.x", str(position % 2))]
        if position == 3:
            tags.append(RegisteredModelTag("text", LONG))
        pair.create_registered_model(name, tags, f"about {name}")
        for number in range((position + 1) % 4):
            version_tags = [
                ModelVersionTag("n", str(number)),
                ModelVersionTag("style", "Lower"[: number + 1]),
            ]
            pair.create_model_version(
                name, f"s3://{name}/{number}", f"run{number}" if number else None, version_tags
            )
    for name in ("prompt-a", "prompt-b"):
        pair.create_prompt(name, tags={"i": "0", "_mlflow_experiment_ids": ",1,12,"})
        pair.create_prompt_version(name, "Hello {{name}}", tags={"n": "0"})
    pair.transition_model_version_stage("betaX1", 1, "Staging", False)
    pair.delete_model_version("ünï", 3)
    pair.set_registered_model_tag("beta_1", RegisteredModelTag("i", "changed"))
    pair.update_registered_model("alpha", "later")
    pair.update_model_version("beta_1", 1, "later")
    return pair


MODEL_FILTERS = [
    None,
    "",
    "name = 'alpha'",
    "name != 'alpha'",
    "name LIKE 'beta_1'",
    "name LIKE 'beta\\_1'",
    "name LIKE '%a'",
    "name ILIKE 'ALPHA'",
    "name ILIKE '%A%'",
    "name LIKE ''",
    "name IN ('alpha', 'ünï')",
    "name NOT IN ('alpha', 'ünï')",
    'name = "gamma\'q"',
    "attribute.name = 'alpha'",
    "tags.i = '1'",
    "tag.i != '1'",
    "tags.`parity.x` = '1' AND tags.i LIKE '_'",
    "tags.i LIKE '%' AND tags.i != '2' AND name LIKE '%a%'",
    "tags.missing != 'x'",
    f"tags.text = '{LONG}'",
    "tags.text LIKE 'long%'",
    "tags.text != 'x'",
    "tags.text = 'long'",
    "tags.`mlflow.prompt.is_prompt` = 'true'",
    "tags.`mlflow.prompt.is_prompt` = 'TRUE'",
    "tags.`mlflow.prompt.is_prompt` != 'true'",
    "tags.`mlflow.prompt.is_prompt` = 'false'",
    "tags.`mlflow.prompt.is_prompt` != 'false'",
    "tags.`mlflow.prompt.is_prompt` LIKE 't%'",
    "tags.`mlflow.prompt.is_prompt` = 'false' AND tags.i = '1'",
    "name = 'prompt-a'",
    "name = 'prompt-a' AND tags.`mlflow.prompt.is_prompt` = 'true'",
]

VERSION_FILTERS = [
    *(each for each in MODEL_FILTERS if each is None or "text" not in each),
    "version_number = 1",
    "version_number > 1",
    "version_number != 2 AND name = 'betaX1'",
    "version_number <= '2'",
    "attribute.version_number = 1",
    "run_id = 'run1'",
    "run_id != 'run1'",
    "run_id IN ('run1', 'run2')",
    "run_id NOT IN ('run1')",
    "run_id LIKE 'run%'",
    "source_path = 's3://ünï/1'",
    "source_path LIKE 's3://beta%'",
    "source_path ILIKE 'S3://BETA%'",
    "tags.n = '0' AND tags.style = 'L'",
    "tags.n != '0'",
    "tags.style ILIKE 'LO%'",
    "name='betaX1' and tags.n = '0' and run_id = 'run0'",
]

BAD_FILTERS = [
    "name",
    "name = ",
    "name = alpha",
    "name = 5",
    "name > 'a'",
    "name < 'a'",
    "nme = 'a'",
    "tags.i > 'a'",
    "tags.i = 5",
    "tags.i IN ('a')",
    "params.x = 'a'",
    "creation_timestamp > 5",
    "name = 'a' OR name = 'b'",
    "name = 'a'; name = 'b'",
    "name = 'a' AND",
    "name IN ()",
    "name IN (1, 2)",
    "name IN ('a'",
    "name BETWEEN 'a' AND 'b'",
    "name IS NULL",
    "AND",
    "((((",
]
BAD_VERSION_FILTERS = [
    *BAD_FILTERS,
    "version_number LIKE '1'",
    "version_number = 'x'",
    "version_number = 1.5",
    "version_number IN (1)",
    "run_id = 5",
    "source_path IN ('x')",
    "current_stage = 'None'",
]


@pytest.mark.parametrize("filter_string", MODEL_FILTERS)
def test_filters_of_models(filled: RegistryPair, filter_string: str | None) -> None:
    filled.search_registered_models(filter_string)


def test_filters_find_something(filled: RegistryPair) -> None:
    empty = [each for each in MODEL_FILTERS if not filled.ours.search_registered_models(each)]
    assert len(empty) < len(MODEL_FILTERS) / 3
    empty = [each for each in VERSION_FILTERS if not filled.ours.search_model_versions(each)]
    assert len(empty) < len(VERSION_FILTERS) / 3


@pytest.mark.parametrize("filter_string", VERSION_FILTERS)
def test_filters_of_versions(filled: RegistryPair, filter_string: str | None) -> None:
    filled.search_model_versions(filter_string, order_by=["name DESC", "version_number"])


@pytest.mark.parametrize("filter_string", BAD_FILTERS)
def test_bad_filters_of_models(filled: RegistryPair, filter_string: str) -> None:
    _both_refuse(filled, "search_registered_models", filter_string)


@pytest.mark.parametrize("filter_string", BAD_VERSION_FILTERS)
def test_bad_filters_of_versions(filled: RegistryPair, filter_string: str) -> None:
    _both_refuse(filled, "search_model_versions", filter_string)


def _both_refuse(pair: RegistryPair, method: str, filter_string: str) -> None:
    """With MLflow's own error; where SQL crashes on bad input, ours says what is wrong with it."""
    ours, theirs = differs(pair, method, filter_string)
    if theirs.code == "INVALID_PARAMETER_VALUE":
        pair.refused(method, filter_string)
    else:
        assert (theirs.error is None) == (ours.error is None), (ours, theirs)
        if theirs.error is not None:
            assert ours.code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "order_by",
    [
        None,
        [],
        ["name"],
        ["name DESC"],
        ["timestamp"],
        ["last_updated_timestamp DESC"],
        ["timestamp DESC", "name DESC"],
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_pages_of_models(filled: RegistryPair, order_by: list[str] | None, size: int) -> None:
    found = filled.pages("search_registered_models", order_by=order_by, max_results=size)
    assert sorted(model.name for model in found) == sorted(NAMES)


@pytest.mark.parametrize(
    "order_by",
    [
        None,
        ["name"],
        ["version_number"],
        ["version_number DESC", "name DESC"],
        ["creation_timestamp ASC"],
        ["last_updated_timestamp"],
        ["name", "last_updated_timestamp DESC"],
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1_000])
def test_pages_of_versions(filled: RegistryPair, order_by: list[str] | None, size: int) -> None:
    by_time = order_by is None or any("timestamp" in clause for clause in order_by)
    if by_time:
        # Two versions of one millisecond in one store are of two in the other.
        found, token = [], None
        while True:
            page = filled.ours.search_model_versions(None, size, order_by, token)
            found, token = [*found, *page], page.token
            if not token:
                break
    else:
        found = filled.pages("search_model_versions", order_by=order_by, max_results=size)
    keys = [(version.name, version.version) for version in found]
    assert len(keys) == len(set(keys)) == 11


@pytest.mark.parametrize(
    "order_by",
    [["nonsense"], ["name", "name DESC"], ["name SIDEWAYS"], ["tags.i"], [""], ["creation_timestamp"]],
)
def test_bad_orders_of_models(filled: RegistryPair, order_by: list[str]) -> None:
    _both_refuse_order(filled, "search_registered_models", order_by)


@pytest.mark.parametrize(
    "order_by", [["nonsense"], ["name", "name"], ["run_id"], ["name x"], [""], ["tags.i"]]
)
def test_bad_orders_of_versions(filled: RegistryPair, order_by: list[str]) -> None:
    _both_refuse_order(filled, "search_model_versions", order_by)


def _both_refuse_order(pair: RegistryPair, method: str, order_by: list[str]) -> None:
    ours, theirs = differs(pair, method, order_by=order_by)
    assert theirs.error is not None
    assert (type(ours.error), ours.code) == (type(theirs.error), theirs.code)


@pytest.mark.parametrize("size", [1_001, 10**9])
def test_large_pages_of_models_are_refused(filled: RegistryPair, size: int) -> None:
    filled.refused("search_registered_models", max_results=size)


@pytest.mark.parametrize("size", [0, -1, 200_001, None, "x"])
def test_bad_page_sizes_of_versions(filled: RegistryPair, size: object) -> None:
    filled.refused("search_model_versions", max_results=size)


@pytest.mark.parametrize("token", ["x", "eyJvZmZzZXQiOiAxfQ==", "bm90IGpzb24="])
@pytest.mark.parametrize("method", ["search_registered_models", "search_model_versions", "list_webhooks"])
def test_foreign_tokens_are_refused(filled: RegistryPair, method: str, token: str) -> None:
    ours, _ = differs(filled, method, page_token=token)
    assert ours.code == "INVALID_PARAMETER_VALUE"


def test_a_token_belongs_to_its_search(filled: RegistryPair) -> None:
    token = filled.search_registered_models(max_results=1).token
    ours, _ = differs(filled, "search_registered_models", "name = 'alpha'", page_token=token)
    assert ours.code == "INVALID_PARAMETER_VALUE"


def test_other_versions_of_a_model_with_a_prompt_version_are_found_unlike_in_sql(
    filled: RegistryPair,
) -> None:
    filled.create_registered_model("mixed")
    filled.create_model_version("mixed", "s3://x")
    filled.create_model_version("mixed", "s3://x", tags=[ModelVersionTag("mlflow.prompt.is_prompt", "true")])
    ours, theirs = differs(filled, "search_model_versions", "name = 'mixed'")
    assert [version.version for version in ours.result] == [1]
    assert theirs.result == []
    filled.delete_registered_model("mixed")
