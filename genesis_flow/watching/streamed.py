"""Events from the change stream: first what there is, then each change that it does not have yet.

The stream is opened before the state is read, so nothing is missed. Changes up to the moment at which the
state was read may be in it already: of these only what it lacks is told (``_is_unsure``).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mlflow.exceptions import MlflowException

from genesis_flow.areas.metrics.documents import TAIL_LIMIT, MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.points import Point as Stored
from genesis_flow.areas.metrics.points import distinct, unpack
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database
from genesis_flow.watching import heads
from genesis_flow.watching.events import (
    Event,
    MetricLogged,
    Point,
    RunCreated,
    RunDeleted,
    RunFound,
    changed,
    flat,
    whole,
)
from genesis_flow.watching.heads import Head, is_head, run_and_key
from genesis_flow.watching.hub import Change, Stream, hub_of, present
from genesis_flow.watching.place import Book, Moment, Place, resumed
from genesis_flow.watching.state import AT_ONCE, Scope, State, patiently

_ITSELF = ""
_Time = tuple[int, int]


@dataclass(slots=True)
class _Doubt:
    """A change of which the database must say what of it is new."""

    run_id: str
    key: str = _ITSELF
    tail: list[Stored] | None = None


class Streamed:
    def __init__(
        self,
        database: Database,
        scope: Scope,
        state: State,
        name: str,
        after: str | None,
        tells_state: bool,
    ) -> None:
        self._database = database
        self._hub = hub_of(database)
        self._scope = scope
        self._state = state
        self._name = name
        self._tells_state = tells_state
        self._book = Book()
        self._moment = Moment((0, 0))
        self._unsure_until = (0, 0)
        # The metrics of the runs that are watched, with what was told of them.
        self._heads: dict[str, dict[str, Head]] = {}
        # Of the state: runs that are not read, documents that are not told, blocks of the first of these.
        self._unread: deque[str] = deque()
        self._untold: deque[tuple[type, Document]] = deque()
        self._blocks: list[Document] | None = None
        # As long as changes may be older: runs as they were told until a time, and the blocks that were told.
        self._found: dict[str, tuple[_Time, Document]] = {}
        self._told_blocks: dict[tuple[str, str], set[str]] = {}
        self._doubt: _Doubt | None = None
        self._settled: Event | None = None
        self._number: int | None = None
        self._own: Stream | None = None
        self._resumed = resumed(after, name) if after is not None else None
        # Until a change comes behind the token.
        self._is_at_token = self._resumed is not None

    async def begin(self) -> None:
        """Join the stream, and see what there is to tell before it."""
        place = self._resumed
        await self._hub.join(self, place.moment if place else None)
        self._moment = place.moment if place else self._hub.tip
        self._state.not_before = self._moment
        if place is not None:
            self._heads = place.heads
            self._unsure_until = place.unsure_until
            for run_id, known in place.heads.items():
                for key, head in known.items():
                    head.until = place.unsure_until
                    self._book.note(run_id, key, head)
                known.pop(_ITSELF, None)
                self._found[run_id] = (place.unsure_until, {})
        if place is None or place.is_partial:
            self._unread.extend(await patiently(self._database, self._state.run_ids))
        if place is None and not self._tells_state:
            while self._unread:
                await self._pass_state_over()

    def token(self) -> str:
        return self._place().token()

    async def close(self) -> None:
        self._hub.leave(self)
        await self._close_own()

    @property
    def has_told_all(self) -> bool:
        waits = self._unread or self._untold or self._doubt or self._settled or self._number is None
        return not waits and self._number == self._hub.end

    def take(self) -> Event | None:
        event, self._settled = self._settled, None
        if event is not None:
            return event
        if self._doubt is not None:
            return None
        if self._untold:
            return self._tell_state()
        while not self._unread and self._number is not None and not self._hub.has_gone(self._number):
            change = self._hub.change(self._number)
            if change is None:
                return None
            self._number += 1
            event = self._of(change)
            if event is not None or self._doubt is not None:
                return event
        return None

    async def work(self) -> None:
        if self._doubt is not None:
            await self._settle(self._doubt)
        elif self._untold:
            await self._read_history()
        elif self._unread:
            await self._read_state()
        elif self._number is None or self._hub.has_gone(self._number):
            await self._catch_up()
        else:
            try:
                await self._hub.wait(self._number)
            except MlflowException:
                self._number = None  # whoever asks again joins another stream
                raise

    # What there is.

    async def _read_state(self) -> None:
        """Read some runs and their heads, which are told before others are read."""
        run_ids = self._next_unread()
        runs = await patiently(self._database, lambda: self._state.runs(run_ids))
        found = await patiently(self._database, lambda: self._state.heads(run_ids))
        await self._is_now()
        of_run: dict[str, list[Document]] = {}
        for head in found:
            of_run.setdefault(head["run_uuid"], []).append(head)
        untold: list[tuple[type, Document]] = []
        for run in runs:
            told = self._heads.get(run["_id"])
            if told is None:
                untold.append((RunFields, run))
            untold += [(Head, head) for head in of_run.get(run["_id"], ()) if head["key"] not in (told or ())]
        # All at once: who gives up before reads the same again.
        for _ in run_ids:
            self._unread.popleft()
        self._untold.extend(untold)

    async def _pass_state_over(self) -> None:
        """Read some runs and their heads, of which only changes are told."""
        run_ids = self._next_unread()
        state = self._state
        while True:
            before = await patiently(self._database, lambda: state.heads(run_ids))
            blocks = await patiently(self._database, lambda: state.block_ids(run_ids))
            found = await patiently(self._database, lambda: state.heads(run_ids))
            packed = {head["_id"]: head["packed"] for head in before}
            # Else a tail went to a block while these were read.
            if all(packed.get(head["_id"], 0) == head["packed"] for head in found):
                break
        runs = await patiently(self._database, lambda: state.runs(run_ids))
        await self._is_now()
        for run in runs:
            self._watch_run(run)
        for head in found:
            self._watch_head(head, blocks.get((head["run_uuid"], head["key"]), set()))
        for _ in run_ids:
            self._unread.popleft()

    async def _read_history(self) -> None:
        """Read the blocks of the metric that is told next."""
        _, head = self._untold[0]
        read = await patiently(self._database, lambda: self._state.history(head))
        await self._is_now()
        if read is None:
            self._untold.popleft()
        else:
            now, self._blocks = read
            self._untold[0] = (Head, now)

    def _next_unread(self) -> list[str]:
        return [self._unread[index] for index in range(min(AT_ONCE, len(self._unread)))]

    async def _is_now(self) -> None:
        """What was read may be newer than changes that are still to come."""
        now = await patiently(self._database, lambda: present(self._database))
        self._unsure_until = max(self._unsure_until, now.time)

    def _tell_state(self) -> Event | None:
        kind, document = self._untold[0]
        if kind is RunFields:
            self._untold.popleft()
            self._watch_run(document)
            return whole(RunFound, document, self._token())
        if document["packed"] and self._blocks is None:
            return None
        self._untold.popleft()
        blocks, self._blocks = self._blocks or [], None
        packed = [point for block in blocks for point in unpack(block)]
        head = self._watch_head(document, {block["_id"] for block in blocks})
        head.remember(packed[-2 * TAIL_LIMIT :])
        points = distinct([*packed, *heads.of_tail(document["tail"])])
        return self._logged(document["run_uuid"], document["key"], points)

    def _watch_head(self, document: Document, blocks: set[str]) -> Head:
        """Note what the state has of a metric as told."""
        run_id, key = document["run_uuid"], document["key"]
        head = Head(packed=int(document["packed"]), until=self._unsure_until)
        head.has_told(heads.of_tail(document["tail"]))
        self._heads.setdefault(run_id, {})[key] = head
        if blocks:
            self._told_blocks[run_id, key] = blocks
        self._book.note(run_id, key, head)
        return head

    def _watch_run(self, run: Document, *, is_new: bool = False) -> None:
        self._heads.setdefault(run["_id"], {})
        if not is_new:
            self._found[run["_id"]] = (self._unsure_until, flat(run))
        self._book.note(run["_id"], _ITSELF, Head())

    # Changes.

    def _of(self, change: Change) -> Event | None:
        """What a change tells; None if that is nothing, or in doubt."""
        if change.moment <= self._moment:
            if self._is_at_token:
                self._remember(change)
            return None
        self._is_at_token = False
        self._moment = change.moment
        time = change.moment.time
        if time > self._unsure_until and (self._found or self._told_blocks):
            self._found.clear()
            self._told_blocks.clear()
        if change.kind is RunFields:
            return self._of_run(change)
        run_id, key = run_and_key(change.identity)
        known = self._heads.get(run_id)
        if known is None:
            return None
        if change.kind is MetricHeadFields:
            return self._of_head(change, run_id, key, known)
        is_told = change.identity in self._told_blocks.get((run_id, key), ())
        if change.document is not None and not is_told:
            heads.of_block(change.document, known.setdefault(key, Head(is_told=False)))
        return None

    def _remember(self, change: Change) -> None:
        """A change that was told before the token.

        Of a transaction, some heads may come behind it, and their blocks came before.
        """
        run_id, key = run_and_key(change.identity)
        known = self._heads.get(run_id)
        if known is None or change.moment.time != self._moment.time:
            return
        if change.kind is MetricHeadFields and key in known:
            known[key].held = []
        elif change.kind is MetricBlockFields and change.document is not None:
            heads.of_block(change.document, known.setdefault(key, Head(is_told=False)))

    def _of_run(self, change: Change) -> Event | None:
        run_id, fields, document = change.identity, change.fields, change.document
        is_known = run_id in self._heads
        if change.operation == "delete":
            return self._forget(run_id) if is_known else None
        if not is_known:
            return self._of_unknown_run(change)
        if fields.get("workspace", self._scope.workspace) != self._scope.workspace:
            return self._forget(run_id)
        if change.moment.time <= self._found.get(run_id, ((0, 0), {}))[0]:
            self._doubt = _Doubt(run_id)
            return None
        new = fields if document is None else flat(document)
        return changed(run_id, new, list(change.removed), self._token())

    def _of_unknown_run(self, change: Change) -> Event | None:
        run = change.document
        if run is None:
            if change.fields.get("workspace") == self._scope.workspace:
                self._unread.append(change.identity)  # it has come from another one
        elif self._scope.has(run):
            if not run.get("metric_keys"):
                self._watch_run(run, is_new=True)
                return whole(RunCreated, run, self._token())
            self._unread.append(run["_id"])  # it is imported, and its metrics may have come before it
        self._state.not_before = self._moment
        return None

    def _forget(self, run_id: str) -> Event:
        for key in (_ITSELF, *self._heads.pop(run_id)):
            self._book.note(run_id, key, None)
        self._found.pop(run_id, None)
        return RunDeleted(run_id, _token=self._token())

    def _of_head(self, change: Change, run_id: str, key: str, known: dict[str, Head]) -> Event | None:
        head = known.get(key)
        is_unsure = head is not None and change.moment.time <= head.until
        if change.operation == "delete":
            if known.pop(key, None) is not None:
                self._book.note(run_id, key, None)
            return None
        if change.document is not None:
            if is_unsure or not is_head(change.document):
                return None
            head = known.setdefault(key, Head())
            told = heads.of_new_head(change.document, head)
        elif heads.is_of_head(change.fields):
            head = known.setdefault(key, Head())
            told = heads.of_head(change.fields, head, is_unsure=is_unsure)
        else:
            return None
        if told.doubtful is not None:
            self._doubt = _Doubt(run_id, key, told.doubtful)
            return None
        self._book.note(run_id, key, head)
        return self._logged(run_id, key, told.points) if told.points else None

    async def _settle(self, doubt: _Doubt) -> None:
        """Ask the database what is new of a change that may be older than what was told."""
        self._state.not_before = self._moment
        if doubt.tail is not None:
            event = await self._settle_head(doubt.run_id, doubt.key, doubt.tail)
        else:
            event = await self._settle_run(doubt.run_id)
        self._doubt, self._settled = None, event

    async def _settle_head(self, run_id: str, key: str, tail: list[Stored]) -> Event | None:
        head, state = self._heads[run_id][key], self._state
        ids = self._told_blocks.get((run_id, key))
        if ids is not None:
            blocks = await patiently(self._database, lambda: state.those_blocks(ids))
        else:
            # Behind a token it is not known which blocks were told: all, unless others came since.
            read = await patiently(
                self._database, lambda: state.history({"run_uuid": run_id, "key": key, "packed": head.packed})
            )
            blocks = read[1] if read is not None and read[0]["packed"] == head.packed else []
        points = heads.settle(tail, [point for block in blocks for point in unpack(block)], head)
        self._book.note(run_id, key, head)
        return self._logged(run_id, key, points) if points else None

    async def _settle_run(self, run_id: str) -> Event | None:
        runs = await patiently(self._database, lambda: self._state.runs([run_id]))
        await self._is_now()
        if not runs:
            return None
        _, old = self._found[run_id]
        new = flat(runs[0])
        self._found[run_id] = (self._unsure_until, new)
        fresh = {path: value for path, value in new.items() if path not in old or old[path] != value}
        return changed(run_id, fresh, [path for path in old if path not in new], self._token())

    # The stream.

    async def _catch_up(self) -> None:
        """Read what the stream of all no longer has from one of our own, until they meet."""
        await self._hub.join(self, self._moment)
        # Behind a token from the begin of its moment: a transaction is one moment.
        behind = Moment(self._moment.time) if self._is_at_token else self._moment
        self._number = self._hub.number_behind(behind)
        if self._number is None:
            change = await patiently(self._database, self._next_of_own)
            if change is not None:
                self._settled = self._of(change)
        else:
            await self._close_own()

    async def _next_of_own(self) -> Change | None:
        try:
            if self._own is None:
                self._own = Stream(self._database)
                await self._own.open(Moment(self._moment.time))
            return await self._own.next()
        except BaseException:
            await self._close_own()
            raise

    async def _close_own(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    # Events.

    def _logged(self, run_id: str, key: str, points: list[Stored]) -> Event:
        return MetricLogged(run_id, key, tuple(Point(*point) for point in points), _token=self._token())

    def _token(self) -> Callable[[], str]:
        return self._place().token

    def _place(self) -> Place:
        book = self._book
        return Place(
            self._name,
            self._moment,
            self._unsure_until,
            bool(self._unread or self._untold),
            book.base,
            book.notes,
            len(book.notes),
        )
