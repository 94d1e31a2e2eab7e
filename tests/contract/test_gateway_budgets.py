"""Budgets of the AI gateway."""

from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
)

from tests.contract.pair import Pair
from tests.contract.test_gateway import endpoint
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
