"""Budgets of the AI gateway, and what its calls have cost."""

import random
from typing import Any

import pytest
from mlflow.entities import Span, TraceInfo
from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
)
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey

from genesis_flow.areas.traces.sums import costs, departures, kept
from tests.contract.pair import Pair
from tests.contract.test_gateway import endpoint
from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.versions import since_3_18

USD, REJECT, ALERT = BudgetUnit.USD, BudgetAction.REJECT, BudgetAction.ALERT
DAY = BudgetDuration(BudgetDurationUnit.DAYS, 1)
GLOBAL, WORKSPACE = BudgetTargetScope.GLOBAL, BudgetTargetScope.WORKSPACE
ENDPOINT, USER = BudgetTargetScope.ENDPOINT, BudgetTargetScope.USER


def test_budgets(pair: Pair) -> None:
    endpoint_id = endpoint(pair)
    for scope, target in (
        (GLOBAL, None),
        (WORKSPACE, "dropped"),
        (ENDPOINT, endpoint_id),
        (USER, "me"),
        ("GLOBAL", ""),
    ):
        made = pair.create_budget_policy(USD, 1.5, DAY, scope, REJECT, "me", target)
        pair.get_budget_policy(made.budget_policy_id)
    pair.create_budget_policy(USD, -1.0, BudgetDuration("MONTHS", 0), GLOBAL, ALERT)
    for scope, target in ((ENDPOINT, None), (USER, ""), (ENDPOINT, "e-none")):
        pair.refused("create_budget_policy", USD, 1, DAY, scope, REJECT, None, target)
    assert len(pair.pages("list_budget_policies", 4)) == 6
    for bad in (0, -1, 50_001):
        pair.refused("list_budget_policies", bad)


def test_changes_of_budgets(pair: Pair) -> None:
    """G9 and G10: another scope forgets the target; a budget outlives its endpoint."""
    endpoint_id = endpoint(pair)
    made = pair.create_budget_policy(USD, 1.0, DAY, ENDPOINT, REJECT, "me", endpoint_id)
    budget = made.budget_policy_id
    for given in (
        {"budget_amount": 2.0, "updated_by": "you"},
        {"duration": BudgetDuration("HOURS", 3), "budget_action": ALERT},
        {"target_scope": ENDPOINT},
        {"target_scope": USER, "target_value": "me"},
        {"target_scope": GLOBAL, "updated_by": ""},
        {"target_value": "dropped"},
        {"target_scope": ENDPOINT, "target_value": endpoint_id},
        {},
    ):
        pair.update_budget_policy(budget, **given)
        pair.get_budget_policy(budget)
    pair.refused("update_budget_policy", budget, target_scope=USER)
    pair.refused("update_budget_policy", budget, target_value="e-none")
    pair.refused("update_budget_policy", budget, target_value="")
    pair.delete_gateway_endpoint(endpoint_id)
    pair.update_budget_policy(budget, budget_amount=3.0)
    pair.delete_budget_policy(budget)
    for method in ("get_budget_policy", "update_budget_policy", "delete_budget_policy"):
        pair.refused(method, budget)


@since_3_18
def test_budgets_of_all_workspaces(pair: Pair) -> None:
    pair.create_budget_policy(USD, 1.0, DAY, GLOBAL, REJECT)
    assert len(pair.list_budget_policies_across_workspaces()) == 1


HOUR = 3_600_000
ENDPOINTS, USERS = ("e-1", "e-2"), ("ann", "bob", None)


def call(number: int, dice: random.Random) -> tuple[TraceInfo, list[Span]]:
    """A call of the gateway as its trace says, and the spans with what it has cost."""
    said, user = {TraceMetadataKey.GATEWAY_ENDPOINT_ID: dice.choice(ENDPOINTS)}, dice.choice(USERS)
    if user is not None:
        said[TraceMetadataKey.AUTH_USERNAME] = user
    start = dice.randrange(5 * HOUR)
    cost = {SpanAttributeKey.LLM_COST: {"total_cost": dice.random()}} if number % 7 else {}
    spans = [
        span(trace_id(number), 1, start=start, end=start + 9),
        span(trace_id(number), 2, 1, start=start, end=start + 8, attributes=cost),
    ]
    return stated(trace_id(number), start=start, trace_metadata=said), spans


def costs_are_equal(pair: Pair, dice: random.Random) -> None:
    """To what SQL promises of a sum of such numbers: nobody says in which order it adds them."""
    begin = STARTED // HOUR * HOUR
    ever = [(0, 2**53), (begin, begin + 3 * HOUR), (STARTED + dice.randrange(HOUR), STARTED + 4 * HOUR)]
    for start, end in ever:
        for endpoint_id in (None, *ENDPOINTS):
            for user in (None, "ann"):
                args = (start, end, None, endpoint_id, user)
                ours, theirs = pair.both("sum_gateway_trace_cost", *args)
                assert (ours.error, theirs.error) == (None, None)
                assert ours.result == pytest.approx(theirs.result, rel=1e-14, abs=0), args


def test_what_calls_have_cost(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """From sums that are kept: after calls that come late, that change, and that are deleted."""
    monkeypatch.setattr(kept, "WORTH_KEEPING", 0)
    monkeypatch.setattr(kept, "RETRY_SECONDS", -2)
    monkeypatch.setattr(departures, "MARGIN_SECONDS", 0)
    used: list[int] = []
    split = costs._split

    def counted(*args: Any) -> Any:
        whole, ranges = split(*args)
        used.append(sum(not piece.is_empty for piece in whole))
        return whole, ranges

    monkeypatch.setattr(costs, "_split", counted)
    dice = random.Random(20)
    for first in (0, 12):
        for number in range(first, first + 12):
            info, spans = call(number, dice)
            pair.both("log_spans", "0", spans)
            pair.both("start_trace", info)
        costs_are_equal(pair, dice)
        assert max(used) >= 4, "sums answer a good part of the questions"
    for number in (3, 15):
        info, _ = call(number, dice)  # elsewhere, and of somebody else
        pair.both("start_trace", info)
        costs_are_equal(pair, dice)
    pair.both("delete_traces", "0", trace_ids=[trace_id(each) for each in (1, 2, 13)])
    costs_are_equal(pair, dice)
