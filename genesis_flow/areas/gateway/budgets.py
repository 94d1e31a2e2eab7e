"""Budgets of the gateway, and what was spent.

Round trips: all one; two for a budget of an endpoint, which has to be there, and three for a change. What was
spent takes two: it is read from sums that readers keep, and, for the last minutes, from an index over the
traces of endpoints.
"""

from enum import Enum
from typing import Any

from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetTargetScope,
    BudgetUnit,
    GatewayBudgetPolicy,
)
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from pymongo import ASCENDING

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.documents import BudgetFields
from genesis_flow.areas.gateway.remembered import forget
from genesis_flow.areas.gateway.shared import change_of, missing, new, require_endpoint
from genesis_flow.areas.traces.sums.costs import Calls, cost_of_traces
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, call_token, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import scoped

_TARGETED = (BudgetTargetScope.ENDPOINT.value, BudgetTargetScope.USER.value)
_ID_ORDER = [("_id", ASCENDING)]


class GatewayBudgets(Area):
    @property
    def _budgets(self) -> Collection:
        return self.database.collection(BudgetFields)

    @mutation
    async def create_budget_policy(
        self,
        budget_unit: BudgetUnit,
        budget_amount: float,
        duration: BudgetDuration,
        target_scope: BudgetTargetScope,
        budget_action: BudgetAction,
        created_by: str | None = None,
        target_value: str | None = None,
    ) -> GatewayBudgetPolicy:
        """Say how much may be spent in a window of time."""
        scope = _value(BudgetTargetScope, "target_scope", target_scope)
        target = _target(scope, target_value)
        if scope == BudgetTargetScope.ENDPOINT.value:
            await require_endpoint(self.database, str(target), "GatewayEndpoint")
        document = new(
            BudgetFields,
            f"bp-{call_token()}",
            created_by,
            unit=_value(BudgetUnit, "budget_unit", budget_unit),
            amount=_amount(budget_amount),
            **_duration(duration),
            target_scope=scope,
            target_value=target,
            action=_value(BudgetAction, "budget_action", budget_action),
        )
        # Nothing of it is unique but its id.
        refusal = entities.taken(f"The budget {document['_id']} is there already")
        made = await entities.insert(self._budgets, document, refusal)
        forget(self.database)
        return told.budget_policy(made)

    @operation
    async def get_budget_policy(self, budget_policy_id: str) -> GatewayBudgetPolicy:
        """A budget, by its id."""
        return told.budget_policy(
            await entities.find(self._budgets, {"_id": budget_policy_id}, _unknown(budget_policy_id))
        )

    @mutation
    async def update_budget_policy(
        self,
        budget_policy_id: str,
        budget_unit: BudgetUnit | None = None,
        budget_amount: float | None = None,
        duration: BudgetDuration | None = None,
        target_scope: BudgetTargetScope | None = None,
        budget_action: BudgetAction | None = None,
        updated_by: str | None = None,
        target_value: str | None = None,
    ) -> GatewayBudgetPolicy:
        """Change what is given of a budget. With another scope it forgets its target."""
        refusal = _unknown(budget_policy_id)
        fields: Document = {
            "unit": _value(BudgetUnit, "budget_unit", budget_unit) if budget_unit is not None else None,
            "amount": _amount(budget_amount) if budget_amount is not None else None,
            "action": _value(BudgetAction, "budget_action", budget_action)
            if budget_action is not None
            else None,
            **(_duration(duration) if duration is not None else {}),
        }
        while True:
            known = await entities.find(self._budgets, {"_id": budget_policy_id}, refusal)
            aim = {field: known.get(field) for field in ("target_scope", "target_value")}
            scope, target = known["target_scope"], aim["target_value"]
            if target_scope is not None:
                wanted = _value(BudgetTargetScope, "target_scope", target_scope)
                target, scope = (target if wanted == scope else None), wanted
            target = _target(scope, target if target_value is None else target_value)
            if target_value is not None and scope == BudgetTargetScope.ENDPOINT.value:
                await require_endpoint(self.database, str(target), "GatewayEndpoint")
            update = change_of({**fields, "target_scope": scope, "target_value": target}, updated_by)
            if updated_by == "":
                update["$set"]["last_updated_by"] = updated_by
            if target is None:
                update["$unset"] = {"target_value": ""}
            changed = await self._budgets.update_one(scoped({"_id": budget_policy_id, **aim}), update)
            if changed.matched_count:
                forget(self.database)
                return await self.get_budget_policy(budget_policy_id)
            # Its aim has changed since it was read.

    @mutation
    async def delete_budget_policy(self, budget_policy_id: str) -> None:
        """Remove a budget for good."""
        gone = (await self._budgets.delete_one(scoped({"_id": budget_policy_id}))).deleted_count
        if not gone and not is_repetition():
            raise _unknown(budget_policy_id)()
        forget(self.database)

    @operation
    async def list_budget_policies(
        self, max_results: int = SEARCH_MAX_RESULTS_DEFAULT, page_token: str | None = None
    ) -> PagedList[GatewayBudgetPolicy]:
        """The budgets of this workspace, by id."""
        validate_max_results(max_results)
        found, token = await entities.page(self._budgets, {}, _ID_ORDER, max_results, page_token, (str,))
        return PagedList([told.budget_policy(each) for each in found], token)

    @operation
    async def list_budget_policies_across_workspaces(self) -> list[GatewayBudgetPolicy]:
        """The budgets of all workspaces, by id: for the server itself, which enforces them all."""
        budgets = self.database.everywhere(BudgetFields)
        found = await budgets.find({}, sort=_ID_ORDER, batch_size=BATCH).to_list()
        return [told.budget_policy(each) for each in found]

    @operation
    async def sum_gateway_trace_cost(
        self,
        start_time_ms: int,
        end_time_ms: int,
        workspace: str | None = None,
        endpoint_id: str | None = None,
        username: str | None = None,
    ) -> float:
        """What calls of endpoints have cost, by their traces that began from one time to before the other."""
        # A budget may be for all workspaces.
        calls = Calls(workspace, endpoint_id, username)
        return await cost_of_traces(self.database, start_time_ms, end_time_ms, calls)


def _unknown(budget_policy_id: str) -> entities.Refusal:
    return missing("BudgetPolicy", budget_policy_id=budget_policy_id)


def _value(kind: type[Enum], name: str, given: Any) -> str:
    try:
        return str(kind(given).value)
    except ValueError as error:
        known = ", ".join(str(each.value) for each in kind)
        raise invalid(f"{name} must be one of {known}, not {given!r:.100}.") from error


def _amount(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise invalid(f"budget_amount must be a number, not {given!r:.100}.")
    return float(given)


def _duration(given: BudgetDuration) -> Document:
    return {"duration_unit": given.unit.value, "duration_value": given.value}


def _target(scope: str, target_value: str | None) -> str | None:
    """The target that a budget of this scope has: one of its own, or none."""
    if scope not in _TARGETED:
        return None
    if not target_value:
        raise invalid(f"target_value is required when target_scope is {scope}.")
    return target_value
