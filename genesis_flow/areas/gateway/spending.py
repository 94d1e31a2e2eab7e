"""What calls have spent of budgets: each budget counts it itself, for all workers.

Round trips: asking takes none if no budget refuses such a call, else one; counting one for each budget that
the call is for. Budgets are remembered for a second, as endpoints are; what was spent never is. Traces are
summed when the counter of a window is made, and twice for each window by each process: at first, so that what
a crash kept from the counter is seen, and again when the traces of calls that ended before have been written.
"""

import time
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlflow.entities.gateway_budget_policy import BudgetAction, BudgetTargetScope
from pymongo import ASCENDING, ReturnDocument

from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.budgets import cost_of_traces
from genesis_flow.areas.gateway.documents import BudgetFields
from genesis_flow.areas.gateway.remembered import remembered
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, mutation, operation

if TYPE_CHECKING:
    from mlflow.gateway.budget_tracker import BudgetWindow

# Until the trace of a call that has ended is there: MLflow writes traces behind the answers.
WRITTEN_SECONDS = 60.0
# Calls that a counter remembers: one that is counted again after a failure counts once.
_CALLS = 100
_SHOWN = {"spent.calls": 0}
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is, as budgets ask."""

    workspace: str | None
    endpoint_id: str | None
    username: str | None

    def is_meant_by(self, document: Document) -> bool:
        # Imported here and below: a client that logs metrics does not need it.
        from genesis_flow.compat import budgets

        return bool(
            budgets.applies(
                told.budget_policy(document),
                self.workspace,
                endpoint_id=self.endpoint_id,
                username=self.username,
            )
        )


@dataclass(frozen=True, slots=True)
class _Summed:
    """What the traces of a window say, and when this process asked them first."""

    cost: float
    first: float
    is_final: bool


_sums: "weakref.WeakKeyDictionary[Database, dict[tuple[str, str, int], _Summed]]" = (
    weakref.WeakKeyDictionary()
)


class GatewaySpending(Area):
    @property
    def _counters(self) -> Collection:
        return self.database.collection(BudgetFields)

    @operation
    async def _exceeded_gateway_budget(
        self, endpoint_id: str | None = None, workspace: str | None = None, username: str | None = None
    ) -> "BudgetWindow | None":
        """The first budget that refuses such a call now."""
        caller = Caller(workspace, endpoint_id, username)

        def refuses(document: Document) -> bool:
            return document["action"] == BudgetAction.REJECT.value and caller.is_meant_by(document)

        ids = [each["_id"] for each in await self._known_budgets() if refuses(each)]
        if not ids:
            return None
        found = await self._counters.find({"_id": {"$in": ids}}, _SHOWN, sort=[("_id", ASCENDING)]).to_list()
        for window in [await self._window_of_now(each) for each in found if refuses(each)]:
            if window is not None and window.exceeded:
                return window
        return None

    @operation
    async def _gateway_budget_windows(self) -> "list[BudgetWindow]":
        """The windows of now of all budgets, with what was spent."""
        windows = [await self._window_of_now(each) for each in await self._all_budgets()]
        return [window for window in windows if window is not None]

    @mutation
    async def _count_gateway_cost(
        self,
        call_id: str,
        cost: float,
        endpoint_id: str | None = None,
        workspace: str | None = None,
        username: str | None = None,
    ) -> "list[BudgetWindow]":
        """Count what a call has cost; once, however often it is told. Gives the budgets that it has spent."""
        caller = Caller(workspace, endpoint_id, username)
        counted = [
            await self._count_once(each, call_id, cost)
            for each in await self._known_budgets()
            if caller.is_meant_by(each)
        ]
        return [window for window in counted if window is not None]

    async def _known_budgets(self) -> list[Document]:
        found: list[Document] = await remembered(self.database, "budgets", self._all_budgets)
        return found

    async def _all_budgets(self) -> list[Document]:
        # Not scoped: the gateway enforces the budgets of all workspaces.
        return await self._counters.find({}, _SHOWN, sort=[("_id", ASCENDING)], batch_size=BATCH).to_list()

    async def _count_once(
        self, document: Document | None, call_id: str, cost: float
    ) -> "BudgetWindow | None":
        """The window of a budget, if this call has spent the rest of it."""
        while document is not None and (window := _window_of(document)) is not None:
            place = {"_id": document["_id"], "spent.aim": _aim(document), "spent.start": _start(window)}
            before = await self._counters.find_one_and_update(
                {**place, "spent.calls": {"$ne": call_id}},
                {
                    "$inc": {"spent.cost": cost},
                    "$push": {"spent.calls": {"$each": [call_id], "$slice": -_CALLS}},
                },
                _SHOWN,
                return_document=ReturnDocument.BEFORE,
            )
            if before is not None:
                spent = before["spent"]["cost"]
                window.policy = told.budget_policy(before)
                window.cumulative_spend = spent + cost
                window.exceeded = spent < window.policy.budget_amount <= window.cumulative_spend
                return window if window.exceeded else None
            document = await self._counters.find_one({"_id": document["_id"]})
            if document is None or (window := _window_of(document)) is None:
                return None
            if not _is_counter_of(document, window):
                document = await self._with_counter(document, window)
            elif call_id in document["spent"]["calls"]:
                return None
        return None

    async def _with_counter(self, document: Document, window: "BudgetWindow") -> Document | None:
        """The budget with a counter for a window, which begins with what traces say."""
        spent = await self._sum_of_window(window)
        aimed = ("target_scope", "target_value", "duration_unit", "duration_value")
        counter = {"aim": _aim(document), "start": _start(window), "cost": spent, "calls": []}
        await self._counters.update_one(
            {
                "_id": document["_id"],
                **{field: document.get(field) for field in aimed},
                # Of two who make it the first has: the other's calls would be lost.
                "$or": [{"spent.aim": {"$ne": counter["aim"]}}, {"spent.start": {"$lt": counter["start"]}}],
            },
            {"$set": {"spent": counter}},
        )
        found: Document | None = await self._counters.find_one({"_id": document["_id"]}, _SHOWN)
        return found

    async def _window_of_now(self, document: Document) -> "BudgetWindow | None":
        """The window of now of a budget as it was just read."""
        window = _window_of(document)
        if window is None:
            return None
        counted = document["spent"]["cost"] if _is_counter_of(document, window) else 0.0
        window.cumulative_spend = max(counted, await self._said_by_traces(document, window))
        window.exceeded = window.cumulative_spend >= window.policy.budget_amount
        return window

    async def _said_by_traces(self, document: Document, window: "BudgetWindow") -> float:
        sums = _sums.setdefault(self.database, {})
        key, now = (document["_id"], _aim(document), _start(window)), time.monotonic()
        known = sums.get(key)
        if known is None or not (known.is_final or now < known.first + WRITTEN_SECONDS):
            if len(sums) >= _MOST:
                sums.clear()
            spent = await self._sum_of_window(window)
            known = _Summed(spent, known.first if known else now, is_final=known is not None)
            sums[key] = known
        return known.cost

    async def _sum_of_window(self, window: "BudgetWindow") -> float:
        policy = window.policy
        aims: dict[BudgetTargetScope, dict[str, Any]] = {
            BudgetTargetScope.WORKSPACE: {"workspace": policy.workspace},
            BudgetTargetScope.ENDPOINT: {"endpoint_id": policy.target_value},
            BudgetTargetScope.USER: {"username": policy.target_value},
        }
        end = int(window.window_end.timestamp() * 1000)
        aim = aims.get(policy.target_scope, {})
        return await cost_of_traces(self.database, _start(window), end, **aim)


def _window_of(document: Document) -> "BudgetWindow | None":
    """The window of now, as far as this clock knows: a counter of a later one was made by one that is ahead.

    A budget over no time has none, and refuses nothing.
    """
    from genesis_flow.compat import budgets

    policy = told.budget_policy(document)
    if policy.duration.value <= 0:
        return None
    start = budgets.window_start(policy.duration, datetime.now(UTC))
    counter = document.get("spent")
    if counter is not None and counter["aim"] == _aim(document):
        start = max(start, datetime.fromtimestamp(counter["start"] / 1000, UTC))
    return budgets.BudgetWindow(policy, start, budgets.window_end(policy.duration, start))


def _aim(document: Document) -> str:
    """What a counter is for: one of another aim counts from anew."""
    fields = ("target_scope", "target_value", "duration_unit", "duration_value")
    return "|".join(str(document.get(field)) for field in fields)


def _start(window: "BudgetWindow") -> int:
    return int(window.window_start.timestamp() * 1000)


def _is_counter_of(document: Document, window: "BudgetWindow") -> bool:
    counter = document.get("spent")
    return (
        counter is not None and counter["aim"] == _aim(document) and int(counter["start"]) == _start(window)
    )
