"""What the commands read, in as few round trips as it takes.

Round trips after connecting: ``runs`` two and those of the search; ``show`` and ``compare`` two, of which the
second sends several commands at once, and one more if a history is longer than the tails of its heads.
"""

import asyncio
import dataclasses
import difflib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mlflow.entities import Run, ViewType

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.history import evenly
from genesis_flow.areas.metrics.places import PLACE, WAITING, laid_over, points_of
from genesis_flow.areas.metrics.points import Curve
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.runs.methods import RUN_NAME_FIELD
from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.numbers import INT64
from genesis_flow.core.settings import Embedded, Settings
from genesis_flow.documents.keys import SEPARATOR, children_of
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import operation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.stores.joined import AsyncTrackingStore

T = TypeVar("T")

ACTIVE = "active"
_LAST = "\U0010ffff"
_CANDIDATES = 100
_CANDIDATES_NAMED = 5
_SHOWN_OF_ID = 12
_INTERVALS = 60


class NoSuchRun(GenesisFlowError):
    """No run is meant by what was given."""


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """The latest point of a metric, and its curve in few points."""

    step: int
    timestamp: int
    value: float
    points: int
    sample: list[tuple[int, float]]
    """Steps and values."""


@dataclasses.dataclass(frozen=True, slots=True)
class Detail:
    """All that is shown of one run."""

    run: Run
    experiment: str
    histories: dict[str, History]


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Runs, the names of their experiments, and whether there are more."""

    runs: list[Run]
    experiments: dict[str, str]
    has_more: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """What a name means: a run, or an experiment."""

    run_ids: list[str]
    experiment_ids: list[str]


class Reader(AsyncTrackingStore):
    """A store that also finds what people name in a few letters. It changes nothing."""

    @operation
    async def page(
        self, experiment: str | None, filter_string: str, order_by: list[str], limit: int, view: int
    ) -> Page:
        names = await self._experiments_named(experiment)
        runs, token = await self._search_runs(list(names), filter_string, view, limit, order_by, None)
        return Page(runs, names, token is not None)

    @operation
    async def details(self, named: list[str]) -> list[Detail]:
        run_ids = await asyncio.gather(*(self._look_up(text) for text in named))
        return list(await asyncio.gather(*(self._detail_of(run_id) for run_id in run_ids)))

    @operation
    async def run_or_experiment(self, named: str) -> Named:
        """A run, by its id, its beginning or its name; else an experiment."""
        try:
            return Named([await self._look_up(named)], [])
        except NoSuchRun as no_run:
            try:
                return Named([], list(await self._experiments_named(named)))
            except GenesisFlowError as no_experiment:
                raise GenesisFlowError(f"{no_run} {no_experiment}") from no_experiment

    @operation
    async def statuses(self, named: Named) -> set[str]:
        """Those that the runs have which are not deleted."""
        numbers = [int(each) for each in named.experiment_ids]
        which = {"$or": [{"_id": {"$in": named.run_ids}}, {"experiment_id": {"$in": numbers}}]}
        runs = self.database.collection(RunFields)
        return set(await runs.distinct("status", scoped({**which, "lifecycle_stage": ACTIVE})))

    async def _experiments_named(self, named: str | None) -> dict[str, str]:
        """Names by id: of the one that is named by its name or its id, else of all that are active."""
        experiments = self.database.collection(ExperimentFields)
        query: dict[str, Any] = {"lifecycle_stage": ACTIVE}
        if named is not None:
            either: list[dict[str, Any]] = [{"name": named}]
            if named.isdecimal() and int(named) in INT64:
                either.append({"_id": int(named)})
            query = {"$or": either}
        rows = await experiments.find(scoped(query), {"name": 1}, batch_size=BATCH).to_list()
        if named is None:
            return {str(each["_id"]): each["name"] for each in rows}
        rows.sort(key=lambda each: each["name"] != named)  # a number as a name wins over an id
        if not rows:
            raise GenesisFlowError(await self._no_such_experiment(named))
        return {str(rows[0]["_id"]): rows[0]["name"]}

    async def _no_such_experiment(self, named: str) -> str:
        known = await self._experiments_named(None)
        near = difflib.get_close_matches(named, known.values(), n=3)
        advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "`genesis-flow runs` shows all."
        return f"There is no experiment {named!r}: {advice}"

    async def _look_up(self, text: str) -> str:
        """The one run that has this id, or else this name or an id that begins like this."""
        runs = self.database.collection(RunFields)
        query = {"$or": [{"_id": {"$gte": text, "$lt": text + _LAST}}, {RUN_NAME_FIELD: text}]}
        fields = {"name": 1, "lifecycle_stage": 1}
        exact, candidates = await asyncio.gather(
            runs.find_one(scoped({"_id": text}), {"_id": 1}),
            runs.find(scoped(query), fields, limit=_CANDIDATES, batch_size=BATCH).to_list(),
        )
        if exact is not None:
            return text
        active = [run for run in candidates if run["lifecycle_stage"] == ACTIVE] or candidates
        if len(active) == 1:
            run_id: str = active[0]["_id"]
            return run_id
        if not active:
            raise NoSuchRun(
                f"No run has the name {text!r} or an id that begins with it: `genesis-flow runs` shows what "
                "there is."
            )
        named = [f"{run['_id'][:_SHOWN_OF_ID]} ({run.get('name') or 'no name'})" for run in active]
        more = f" and {len(named) - _CANDIDATES_NAMED} more" if len(named) > _CANDIDATES_NAMED else ""
        count = f"At least {len(named)}" if len(candidates) == _CANDIDATES else len(named)
        raise GenesisFlowError(
            f"{count} runs have the name {text!r} or an id that begins with it: "
            f"{', '.join(named[:_CANDIDATES_NAMED])}{more}. Give more of the id."
        )

    async def _detail_of(self, run_id: str) -> Detail:
        run, histories = await asyncio.gather(self.get_run(run_id), self._histories_of(run_id))
        number = int(run.info.experiment_id)
        experiment = await self.database.collection(ExperimentFields).find_one({"_id": number}, {"name": 1})
        return Detail(run, experiment["name"] if experiment else run.info.experiment_id, histories)

    async def _histories_of(self, run_id: str) -> dict[str, History]:
        heads = self.database.collection(MetricHeadFields)
        query = {"_id": children_of(run_id)}
        fields = {"key": 1, "latest": 1, "tail": 1, "packed": 1, **WAITING}
        # By id, so that places come first.
        found = await heads.find(query, fields, sort=[("_id", 1)], batch_size=BATCH).to_list()
        heads_by_key = {head["key"]: head for head in laid_over(found)}
        for place in found:
            if place["key"] == PLACE:
                for key, point in (pair for row in place["rows"] for pair in points_of(place["keys"], row)):
                    heads_by_key[key]["tail"].append(point)
        histories: dict[str, History] = {}
        if any(head["packed"] for head in heads_by_key.values()):
            # A metric at a time: only one history is in memory as a whole.
            blocks: list[dict[str, Any]] = []
            cursor = self.database.collection(MetricBlockFields).find(query, sort=[("_id", 1)])
            async for block in cursor:
                if blocks and _key(block) != _key(blocks[0]):
                    _add(histories, heads_by_key, blocks)
                    blocks = []
                blocks.append(block)
            _add(histories, heads_by_key, blocks)
        for key in heads_by_key.keys() - histories.keys():
            histories[key] = _history(heads_by_key[key], [])
        return dict(sorted(histories.items()))


def _key(block: dict[str, Any]) -> str:
    key: str = block["_id"].split(SEPARATOR, 2)[1]
    return key


def _add(
    histories: dict[str, History], heads: dict[str, dict[str, Any]], blocks: list[dict[str, Any]]
) -> None:
    """Make the history of one metric; a block without its head is of a run that is being deleted."""
    if blocks and (head := heads.get(_key(blocks[0]))) is not None:
        histories[head["key"]] = _history(head, blocks)


def _history(head: dict[str, Any], blocks: list[dict[str, Any]]) -> History:
    tail = [(int(time), int(step), value) for time, step, value in head["tail"]]
    curve = Curve(blocks, tail)
    latest = head["latest"]
    chosen = evenly(range(len(curve)), _INTERVALS)
    return History(
        step=int(latest["step"]),
        timestamp=int(latest["timestamp"]),
        value=latest["value"],
        points=len(curve),
        sample=[curve[index][1:] for index in chosen],
    )


def read(uri: str | None, ask: Callable[[Reader], Awaitable[T]]) -> T:
    """What ``ask`` gives of the database that ``uri``, or else the configuration, names."""
    settings = Settings.resolve(uri)
    target = settings.target
    if isinstance(target, Embedded) and not (target.directory / "db").is_dir():
        raise GenesisFlowError(
            f"There is no embedded database in {target.directory}: name the right one with --uri or "
            "MLFLOW_TRACKING_URI; `genesis-flow quickstart` or a store's first call makes one."
        )

    async def asked() -> T:
        reader = Reader(settings)
        try:
            return await ask(reader)
        finally:
            await reader.close()

    return asyncio.run(asked())


VIEWS = {False: ViewType.ACTIVE_ONLY, True: ViewType.DELETED_ONLY}
