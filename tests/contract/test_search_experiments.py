"""The search of experiments: filters, orders, pages."""

from itertools import product

import pytest
from mlflow.entities import ExperimentTag, ViewType

from tests.contract.pair import Pair
from tests.versions import SINCE_3_18

NAMES = ["alpha", "Alpha", "al_pha", "al%pha", "beta", "gamma.x", "naïve", "quo'te", "line\nbreak"]


@pytest.fixture(scope="module")
def filled(module_pair: Pair) -> Pair:
    """Nine experiments with some tags, two of them deleted, and the default one."""
    for number, name in enumerate(NAMES):
        tags = [ExperimentTag("parity", str(number % 2))]
        if number % 3 == 0:
            tags += [ExperimentTag("a.b", f"Value {number}"), ExperimentTag("empty", "")]
        experiment_id = module_pair.create_experiment(name, tags=tags)
        if number in (1, 4):
            module_pair.delete_experiment(experiment_id)
    return module_pair


FILTERS = [
    None,
    "",
    "name = 'alpha'",
    'name = "alpha"',
    "name != 'alpha'",
    "attribute.name = 'beta'",
    "name LIKE 'al%'",
    "name LIKE '%pha'",
    "name LIKE 'al_pha'",
    "name LIKE '%'",
    "name LIKE ''",
    "name LIKE 'AL%'",
    "name ILIKE 'AL%'",
    "name ILIKE '%A'",
    "name ILIKE 'NAïVE'",
    "attribute.`name` = 'beta'",
    "name LIKE 'line%break'",
    "name LIKE '%.%'",
    "name LIKE '%[a-c]%'",
    'name = "quo\'te"',
    "name = 'nobody'",
    "experiment_id = '3'",
    "experiment_id != '3'",
    "experiment_id IN ('1', '2', '77')",
    "experiment_id NOT IN ('1', '2')",
    "creation_time > 0",
    "creation_time >= 1",
    "creation_time < 0",
    "creation_time != 5",
    "creation_time = 5",
    "last_update_time > 0",
    "last_update_time <= 99999999999999",
    "tags.parity = '1'",
    "tags.parity != '1'",
    "tag.parity = '0' AND tags.`a.b` LIKE 'Value%'",
    "tags.`a.b` ILIKE 'value _'",
    'tags."a.b" = "Value 3"',
    "tags.empty = ''",
    "tags.empty != ''",
    "tags.never = 'x'",
    "tags.never != 'x'",
    "tags.empty IS NULL",
    "tags.empty IS NOT NULL",
    "tags.never IS NULL AND name LIKE 'a%'",
    "name LIKE 'a%' AND tags.parity = '0' AND creation_time > 0",
]

MALFORMED_FILTERS = [
    "name",
    "name =",
    "name = alpha",
    "= 'alpha'",
    "experiment_id = 3",
    "attributes.`name` = 'beta'",
    "attr.name = 'gamma.x'",
    "name = 'alpha' OR name = 'beta'",
    "name = 'alpha' AND",
    "AND name = 'alpha'",
    "name == 'alpha'",
    "name > 'alpha'",
    "name IN ('alpha')",
    "name IS NULL",
    "lifecycle_stage = 'active'",
    "unknown = 'x'",
    "metrics.m > 1",
    "params.p = 'x'",
    "creation_time LIKE '1%'",
    "creation_time = 'soon'",
    "creation_time = 1.5",
    "creation_time > '5'",
    "experiment_id > 3",
    "experiment_id LIKE '3'",
    "experiment_id = 'x'",
    "experiment_id IN ('x')",
    "tags.parity > '1'",
    "tags.parity = 1",
    "tags.parity IN ('1')",
    "tags. = 'x'",
    "name = 'alpha'; DROP TABLE experiments",
    "name LIKE 'a%",
    "((name = 'alpha'))",
    "name = 'a' name = 'b'",
    "''",
    ";",
]

ORDERS = [
    None,
    [],
    ["name"],
    ["name DESC"],
    ["name ASC"],
    ["experiment_id"],
    ["experiment_id DESC"],
    ["creation_time"],
    ["last_update_time DESC"],
    ["name DESC", "experiment_id ASC"],
    ["attribute.name", "name DESC"],
]

MALFORMED_ORDERS = [
    ["unknown"],
    ["tags.parity"],
    ["metrics.m"],
    ["name SIDEWAYS"],
    ["name DESC, experiment_id"],
    [""],
    ["name desc nulls last"],
]


@pytest.mark.parametrize("filter_string", FILTERS)
def test_filters(filled: Pair, filter_string: str | None) -> None:
    for view in (ViewType.ACTIVE_ONLY, ViewType.ALL):
        filled.search_experiments(view, 100, filter_string)


@pytest.mark.parametrize("filter_string", ["attributes.name = 'alpha'", "attributes.`name` LIKE 'al%'"])
def test_attributes_may_be_named_in_the_plural(filled: Pair, filter_string: str) -> None:
    if SINCE_3_18:
        assert filled.search_experiments(filter_string=filter_string)
    else:
        filled.refused("search_experiments", filter_string=filter_string)


@pytest.mark.parametrize("filter_string", MALFORMED_FILTERS)
def test_malformed_filters_are_treated_alike(filled: Pair, filter_string: str) -> None:
    ours, theirs = filled.both("search_experiments", filter_string=filter_string)
    if theirs.code in ("INVALID_PARAMETER_VALUE", None):
        assert ours.code == theirs.code
    else:
        assert ours.code == "INVALID_PARAMETER_VALUE", "MLflow's parser slipped"


@pytest.mark.parametrize("order_by", ORDERS, ids=str)
def test_orders_and_pages(filled: Pair, order_by: list[str] | None) -> None:
    for view, size in product((ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL), (1, 3, 100)):
        found = filled.pages("search_experiments", view, size, None, order_by)
        expected = {ViewType.ACTIVE_ONLY: 8, ViewType.DELETED_ONLY: 2, ViewType.ALL: 10}[view]
        assert len({experiment.experiment_id for experiment in found}) == len(found) == expected


@pytest.mark.parametrize("order_by", MALFORMED_ORDERS, ids=str)
def test_malformed_orders_are_refused(filled: Pair, order_by: list[str]) -> None:
    assert filled.refused("search_experiments", order_by=order_by).error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("max_results", [0, -1, None, 50_001])
def test_page_sizes_out_of_range_are_refused(filled: Pair, max_results: int | None) -> None:
    assert filled.refused("search_experiments", 1, max_results).error_code == "INVALID_PARAMETER_VALUE"


def test_an_exact_page_has_no_token(filled: Pair) -> None:
    assert filled.search_experiments(max_results=8).token is None
    assert filled.search_experiments(max_results=7).token
    assert filled.search_experiments(max_results=50_000).token is None


@pytest.mark.parametrize("token", ["garbage", "eyJvZmZzZXQiOiAtMX0=", "e30=", "bnVsbA==", "¡", "W10="])
def test_foreign_tokens_are_refused(filled: Pair, token: str) -> None:
    ours, _ = filled.both("search_experiments", page_token=token)
    assert ours.code == "INVALID_PARAMETER_VALUE"
