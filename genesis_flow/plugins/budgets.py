"""MLflow's tracker of budgets, asking the database, so that workers see each other's spending at once."""

import uuid
from typing import Any

from mlflow.entities.gateway_budget_policy import GatewayBudgetPolicy

from genesis_flow.areas.gateway.spending import Caller, counted_at_hand, exceeded_at_hand
from genesis_flow.compat.budgets import BudgetTracker, BudgetWindow
from genesis_flow.mongo.connection import Database
from genesis_flow.sync.tracking import MongoDBStore

_Cost = tuple[str, float, str | None, str | None, str | None]


class SharedBudgets(BudgetTracker):
    """Keeps nothing but what could not be counted yet: that comes first when the database answers again."""

    def __init__(self, store: MongoDBStore) -> None:
        self._store = store
        self._owed: list[_Cost] = []

    def needs_refresh(self) -> bool:
        return False

    def record_cost(
        self,
        cost_usd: float,
        workspace: str | None = None,
        endpoint_id: str | None = None,
        username: str | None = None,
    ) -> list[BudgetWindow]:
        if not self._owed and self._has_none(workspace, endpoint_id, username, that_refuses=False):
            return []
        self._owed.append((uuid.uuid4().hex, cost_usd, endpoint_id, workspace, username))
        return self._count()

    def should_reject_request(
        self, workspace: str | None = None, endpoint_id: str | None = None, username: str | None = None
    ) -> tuple[bool, BudgetWindow | None]:
        self._count()
        if self._has_none(workspace, endpoint_id, username, that_refuses=True):
            return False, None
        caller = Caller(workspace, endpoint_id, username)
        asked = self._store._asked(
            "_exceeded_gateway_budget", lambda database: exceeded_at_hand(database, caller)
        )
        if asked is None:
            window = self._store._exceeded_gateway_budget(endpoint_id, workspace, username)
        else:
            (window,) = asked
        return window is not None, window

    def get_all_windows(self) -> list[BudgetWindow]:
        return list(self._store._gateway_budget_windows())

    def _get_window_info(self, budget_policy_id: str) -> BudgetWindow | None:
        windows = self.get_all_windows()
        return next((each for each in windows if each.policy.budget_policy_id == budget_policy_id), None)

    def refresh_policies(self, policies: list[GatewayBudgetPolicy]) -> list[BudgetWindow]:
        """Policies are read when they are asked."""
        return []

    def backfill_spend(self, spend_by_policy: dict[str, float]) -> None:
        """What traces say is read when it is asked."""

    def _has_none(
        self, workspace: str | None, endpoint_id: str | None, username: str | None, *, that_refuses: bool
    ) -> bool:
        """Whether it is known already that no budget is for such a call."""
        database = self._store.last_opened
        caller = Caller(workspace, endpoint_id, username)
        return database is not None and caller.has_none_in(database, that_refuses=that_refuses)

    def _count(self) -> list[BudgetWindow]:
        exceeded: list[Any] = []
        while self._owed:
            cost = self._owed.pop()
            try:
                exceeded += self._counted(cost)
            except BaseException:
                self._owed.append(cost)
                raise
        return exceeded

    def _counted(self, owed: _Cost) -> list[BudgetWindow]:
        call_id, cost, *whose = owed
        endpoint_id, workspace, username = whose
        caller = Caller(workspace, endpoint_id, username)
        spent: list[BudgetWindow] = []

        def count(database: Database) -> bool:
            found, is_all = counted_at_hand(database, caller, call_id, cost)
            spent.extend(found)
            return is_all

        if not self._store._asked("_count_gateway_cost", count):
            spent += self._store._count_gateway_cost(*owed)
        return spent
