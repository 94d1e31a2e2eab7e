"""What calls have spent of budgets: each budget counts it itself, for all workers.

Round trips: asking takes none if no budget refuses such a call, else one; counting one for each budget that
the call is for. A blocking caller for whose call there is none does not go to the loop, nor do others but for
the first of a window, and when traces are asked: they send their command themselves. Budgets are
remembered for a second, as endpoints are; what was spent never is. Traces are summed when the counter of a
window is made, and by each process when it meets the window, when the traces of calls that ended before have
been written, and then once an hour: so that what a crash kept from the counter is seen. They are summed with
the help of sums that are kept, so that a look does not grow with the window, and sees what came late.
"""

import time
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlflow.entities.gateway_budget_policy import BudgetAction, BudgetTargetScope
from pymongo import ASCENDING, ReturnDocument

from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.documents import BudgetFields
from genesis_flow.areas.gateway.remembered import at_hand, remembered
from genesis_flow.areas.traces.sums.costs import Calls, cost_of_traces
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, mutation, operation

if TYPE_CHECKING:
    from mlflow.gateway.budget_tracker import BudgetWindow

# Until the trace of a call that has ended is there: MLflow writes traces behind the answers.
WRITTEN_SECONDS = 60.0
# How often traces are asked after that.
AGAIN_SECONDS = 3_600.0
# Calls that a counter remembers: one that is counted again after a failure counts once.
_CALLS = 100
_SHOWN = {"spent.calls": 0}
_BUDGETS = "budgets"
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is, as budgets ask."""

    workspace: str | None
    endpoint_id: str | None
    username: str | None

    def has_none_in(self, database: Database, *, that_refuses: bool) -> bool:
        """Whether this process remembers the budgets, and none is for such a call. For any thread."""
        known: list[Document] | None = at_hand(database, _BUDGETS)
        is_for = self.is_refused_by if that_refuses else self.is_meant_by
        return known is not None and not any(map(is_for, known))

    def is_refused_by(self, document: Document) -> bool:
        """Once the budget is spent."""
        return document["action"] == BudgetAction.REJECT.value and self.is_meant_by(document)

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
class _Look:
    """What the traces of a window said, and when this process asked them."""

    cost: float
    time: float
    is_first: bool

    def is_old(self, now: float) -> bool:
        return now >= self.time + (WRITTEN_SECONDS if self.is_first else AGAIN_SECONDS)


_looks: "weakref.WeakKeyDictionary[Database, dict[tuple[str, str, int], _Look]]" = weakref.WeakKeyDictionary()


def exceeded_at_hand(database: Database, caller: Caller) -> "tuple[BudgetWindow | None] | None":
    """The first budget that refuses such a call now, asked by this thread; None if the loop has to look."""
    known: list[Document] | None = at_hand(database, _BUDGETS)
    if known is None:
        return None
    ids = [each["_id"] for each in known if caller.is_refused_by(each)]
    counters, now = database.blocking_collection(BudgetFields), time.monotonic()
    for document in counters.find({"_id": {"$in": ids}}, _SHOWN, sort=[("_id", ASCENDING)]).to_list():
        if not caller.is_refused_by(document) or (window := _window_of(document)) is None:
            continue
        look = _looks.get(database, {}).get(_key_of_look(document, window))
        if look is None or look.is_old(now):
            return None
        if _seen(document, window, look.cost).exceeded:
            return (window,)
    return (None,)


def counted_at_hand(
    database: Database, caller: Caller, call_id: str, cost: float
) -> "tuple[list[BudgetWindow], bool]":
    """Count what a call has cost, by this thread: the budgets that it has spent, and whether that was all.

    If not, the call is to be counted as any other: once, whatever was counted here.
    """
    known: list[Document] | None = at_hand(database, _BUDGETS)
    spent: list[BudgetWindow] = []
    if known is None:
        return spent, False
    counters = database.blocking_collection(BudgetFields)
    for document in known:
        if not caller.is_meant_by(document) or (window := _window_of(document)) is None:
            continue
        place, change = _counting(document, window, call_id, cost)
        before = counters.find_one_and_update(place, change, _SHOWN, return_document=ReturnDocument.BEFORE)
        if before is None:
            return spent, False
        if _counted(before, window, cost).exceeded:
            spent.append(window)
    return spent, True


def _counting(
    document: Document, window: "BudgetWindow", call_id: str, cost: float
) -> tuple[Document, Document]:
    """The counter of a window, unless it has counted the call, and what counts it."""
    place = {"_id": document["_id"], "spent.aim": _aim(document), "spent.start": _start(window)}
    return {**place, "spent.calls": {"$ne": call_id}}, {
        "$inc": {"spent.cost": cost},
        "$push": {"spent.calls": {"$each": [call_id], "$slice": -_CALLS}},
    }


def _counted(before: Document, window: "BudgetWindow", cost: float) -> "BudgetWindow":
    """The window after a call was counted; exceeded if this call has spent the rest of it."""
    spent = before["spent"]["cost"]
    window.policy = told.budget_policy(before)
    window.cumulative_spend = spent + cost
    window.exceeded = spent < window.policy.budget_amount <= window.cumulative_spend
    return window


def _seen(document: Document, window: "BudgetWindow", said: float) -> "BudgetWindow":
    """The window of a budget as it was just read, with what traces say."""
    counted = document["spent"]["cost"] if _is_counter_of(document, window) else 0.0
    window.cumulative_spend = max(counted, said)
    window.exceeded = window.cumulative_spend >= window.policy.budget_amount
    return window


def _key_of_look(document: Document, window: "BudgetWindow") -> tuple[str, str, int]:
    return document["_id"], _aim(document), _start(window)


class GatewaySpending(Area):
    @property
    def _counters(self) -> Collection:
        # Of all workspaces: the gateway enforces the budgets of all of them.
        return self.database.everywhere(BudgetFields)

    @operation
    async def _exceeded_gateway_budget(
        self, endpoint_id: str | None = None, workspace: str | None = None, username: str | None = None
    ) -> "BudgetWindow | None":
        """The first budget that refuses such a call now."""
        caller = Caller(workspace, endpoint_id, username)
        refuses = caller.is_refused_by
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
        found: list[Document] = await remembered(self.database, _BUDGETS, self._all_budgets)
        return found

    async def _all_budgets(self) -> list[Document]:
        return await self._counters.find({}, _SHOWN, sort=[("_id", ASCENDING)], batch_size=BATCH).to_list()

    async def _count_once(
        self, document: Document | None, call_id: str, cost: float
    ) -> "BudgetWindow | None":
        """The window of a budget, if this call has spent the rest of it."""
        while document is not None and (window := _window_of(document)) is not None:
            place, change = _counting(document, window, call_id, cost)
            before = await self._counters.find_one_and_update(
                place, change, _SHOWN, return_document=ReturnDocument.BEFORE
            )
            if before is not None:
                return window if _counted(before, window, cost).exceeded else None
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
        said = await self._sum_of_window(window)
        aimed = ("target_scope", "target_value", "duration_unit", "duration_value")
        counter = {"aim": _aim(document), "start": _start(window), "cost": said, "calls": []}
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
        return _seen(document, window, await self._said_by_traces(document, window))

    async def _said_by_traces(self, document: Document, window: "BudgetWindow") -> float:
        looks = _looks.setdefault(self.database, {})
        key, now = _key_of_look(document, window), time.monotonic()
        known = looks.get(key)
        if known is None or known.is_old(now):
            said = await self._sum_of_window(window)
            if len(looks) >= _MOST:
                looks.clear()
            looks[key] = known = _Look(said, now, is_first=known is None)
        return known.cost

    async def _sum_of_window(self, window: "BudgetWindow") -> float:
        policy = window.policy
        aims: dict[BudgetTargetScope, Calls] = {
            BudgetTargetScope.WORKSPACE: Calls(workspace=policy.workspace),
            BudgetTargetScope.ENDPOINT: Calls(endpoint=policy.target_value),
            BudgetTargetScope.USER: Calls(user=policy.target_value),
        }
        end = int(window.window_end.timestamp() * 1000)
        return await cost_of_traces(
            self.database, _start(window), end, aims.get(policy.target_scope, Calls())
        )


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
