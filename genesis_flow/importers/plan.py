"""Before anything is written: which numbers and names the experiments and models of the source can keep."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.models.documents import RegisteredModelFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.imports import ImportItemFields
from genesis_flow.importers.batch import equal
from genesis_flow.importers.changes import begin_again
from genesis_flow.importers.errors import ImportConflict
from genesis_flow.importers.journal import Journal
from genesis_flow.importers.kind import Kind
from genesis_flow.importers.kinds import PLAIN
from genesis_flow.importers.records import Body, Filters, Item, Problem, Record, Source, Unit
from genesis_flow.importers.roots import item_key
from genesis_flow.importers.target import AT_ONCE, ImportTarget, patiently
from genesis_flow.importers.writers import Context
from genesis_flow.importers.writers.registry import model_key
from genesis_flow.importers.writers.runs import experiment_document

DEFAULT_EXPERIMENT = 0
# Numbers from here on were drawn at random by MLflow's file store: counting never comes near them.
_RANDOM_NUMBERS = 10**12
_NAMED = 10


@dataclass(slots=True)
class Plan:
    """What the experiments and the registered models of the source become."""

    context: Context
    # By id, with the name in the target.
    experiments: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    conflicts: list[Problem] = field(default_factory=list)
    # Experiments of an earlier import that have another name by now, while others have theirs.
    renamed: list[int] = field(default_factory=list)
    # The same of plain kinds: kinds and ids.
    freed: list[tuple[Kind, str]] = field(default_factory=list)


class Planner:
    def __init__(self, target: ImportTarget, journal: Journal, on_conflict: str) -> None:
        self._target = target
        self._journal = journal
        self._on_conflict = on_conflict
        # Names that are taken in the target, in the source or by what this import renamed.
        self._taken: dict[type[Declared], set[str]] = {}
        self._target_named: set[type[Declared]] = set()
        self._plan = Plan(
            Context(
                target.workspace,
                experiments=journal.experiments,
                names=journal.names,
                models=journal.models,
                merged=journal.merged,
                questions=journal.questions,
            )
        )

    def plan(self, source: Source, filters: Filters) -> Plan:
        for item in _items_of(source, filters, "experiment"):
            if isinstance(item, Record) and item.kind == "experiment":
                self._plan.experiments.append(item)
        self._taken[ExperimentFields] = {each.body["name"] for each in self._plan.experiments}
        numbered = [each for each in self._plan.experiments if self._has_number(each.body)]
        self._place_experiments(self._first_of_each(numbered))
        models = [
            item
            for item in _items_of(source, filters, "registered_model")
            if isinstance(item, Record) and item.kind == "registered_model"
        ]
        self._taken[RegisteredModelFields] = {each.body["name"] for each in models}
        self._place_models(models)
        for kind in PLAIN.values():
            if kind.unique:
                self._place_named(kind, source, filters)
        return self._plan

    def _place_named(self, kind: Kind, source: Source, filters: Filters) -> None:
        """Things whose name is theirs alone in an experiment: what of the target has it already."""
        context = self._plan.context
        names = self._named_in_experiments(kind)
        if not names and not context.questions:
            return
        ours = self._ours(kind.collection, [each["_id"] for each in names.values()])
        in_source = {
            item.id: item
            for item in _items_of(source, filters, kind.name)
            if isinstance(item, Record) and item.kind == kind.name
        }
        for record in in_source.values():
            number = (
                context.experiments.get(str(record.body["experiment_id"])) if kind.of_experiment else None
            )
            holder = names.get((number, record.body[kind.unique]))
            context.questions.pop(record.id, None)
            if holder is None or holder["_id"] == record.id:
                continue
            if holder["_id"] in ours and holder["_id"] in in_source:
                self._plan.freed.append((kind, holder["_id"]))
            elif holder.get("is_default") and record.body.get("is_default"):
                # Every experiment gets one without anybody's doing.
                context.questions[record.id] = holder["_id"]
            else:
                where = f" in experiment {number}" if kind.of_experiment else ""
                what = f"the target has another one of this name{where}"
                self._plan.conflicts.append(Problem(kind.name, record.id, what))
                context.refused_others[kind.name, record.id] = what

    def _named_in_experiments(self, kind: Kind) -> dict[tuple[Any, Any], dict[str, Any]]:
        """What the target has of a kind in the experiments of this import, by experiment and name."""
        numbers = sorted(self._plan.context.experiments.values()) if kind.of_experiment else []
        collection, fields = self._target.collection(kind.declared), {kind.unique: 1, "is_default": 1}
        found: list[dict[str, Any]] = []
        if not kind.of_experiment:
            named = {"workspace": self._target.workspace, kind.unique: {"$type": "string"}}
            found = patiently(lambda: list(collection.find(named, fields)))
        for start in range(0, len(numbers), AT_ONCE):
            query = {"experiment_id": {"$in": numbers[start : start + AT_ONCE]}}
            found += patiently(
                lambda query=query: list(collection.find(query, {"experiment_id": 1, **fields}))  # type: ignore[misc]
            )
        return {(each.get("experiment_id"), each[kind.unique]): each for each in found}

    def _has_number(self, body: Body) -> bool:
        text = str(body["experiment_id"])
        if text.isascii() and text.isdigit() and int(text) in INT64:
            return True
        self._plan.context.refused[text] = "its id is not a number, as every experiment's must be"
        return False

    def _first_of_each(self, experiments: list[Record]) -> list[Record]:
        """One experiment for each id; of two with one name the second gets another."""
        by_id: dict[int, Record] = {}
        names: dict[str, str] = {}
        for experiment in experiments:
            if by_id.setdefault(int(experiment.body["experiment_id"]), experiment) is not experiment:
                continue  # the second one is refused when its turn comes
            before = experiment.body["name"]
            if before in names:
                name = self._rename(experiment)
                reason = (
                    f"experiment {names[before]} of the source has the same name {before!r}: this one is "
                    f"imported as {name!r}"
                )
                self._plan.problems.append(Problem("experiment", experiment.id, reason))
            names[self._name_of(experiment.body)] = experiment.id
        return list(by_id.values())

    def _name_of(self, body: Body) -> str:
        return str(self._plan.context.names.get(str(body["experiment_id"])) or body["name"])

    def _rename(self, experiment: Record) -> str:
        """The name that an experiment gets instead of its own; the same at each import."""
        names = self._plan.context.names
        source_id: str = str(experiment.body["experiment_id"])
        if source_id not in names:
            names[source_id] = self._free_name(ExperimentFields, experiment.body["name"], names.values())
        return names[source_id]

    def _free_name(self, declared: type[Declared], name: str, given: Iterable[str]) -> str:
        """A name like this one that nothing has, nor will have after this import."""
        taken = self._taken[declared]
        if declared not in self._target_named:
            self._target_named.add(declared)
            taken |= {*self._names(declared, None), *given}
        number = 1
        while (free := f"{name} (imported{f' {number}' if number > 1 else ''})") in taken:
            number += 1
        taken.add(free)
        return free

    def _place_experiments(self, experiments: list[Record]) -> None:
        context = self._plan.context
        # Those first that an earlier import gave another number, which is theirs since then.
        order = sorted(
            (str(each.body["experiment_id"]) not in context.experiments, self._number_of(each.body), each.id)
            for each in experiments
        )
        by_id = {each.id: each for each in experiments}
        numbers = {number for _, number, _ in order}
        ours = self._ours("experiments", numbers)
        there = {
            found["_id"]: found
            for found in self._target.find_by_ids(ExperimentFields, numbers)
            if found["_id"] not in ours
        }
        taken = self._names(ExperimentFields, [self._name_of(each.body) for each in experiments])
        highest = max((n for n in (*numbers, *self._counted()) if n < _RANDOM_NUMBERS), default=0)
        placed: set[int] = set()
        names = {number: name for name, number in taken.items()}
        renamed = {
            number
            for _, number, experiment_id in order
            if number in names and self._name_of(by_id[experiment_id].body) != names[number]
        }
        for _, number, experiment_id in order:
            experiment = by_id[experiment_id]
            source_id = str(experiment.body["experiment_id"])
            context.experiments[source_id] = number
            what = self._in_the_way(number, experiment, there, placed)
            if what and not self._conflict(experiment, what):
                del context.experiments[source_id]
                continue
            if what:
                highest += 1
                context.experiments[source_id] = highest
            placed.add(context.experiments[source_id])
            name = self._name_of(experiment.body)
            holder = taken.get(name)
            if holder in (None, context.experiments[source_id]):
                continue
            if holder in ours and holder in renamed:
                self._plan.renamed.append(holder)
                continue
            if self._conflict(experiment, f"experiment {taken[name]} of the target has the name {name!r}"):
                self._rename(experiment)
            else:
                del context.experiments[source_id]

    def _in_the_way(
        self, number: int, experiment: Record, there: dict[int, dict[str, Any]], placed: set[int]
    ) -> str | None:
        """What else has the number of an experiment."""
        context = self._plan.context
        if number in placed:
            return f"this import has given its number {number} to another experiment"
        found = there.get(number)
        if found is None or number in context.merged:
            return None
        if self._can_merge(found, experiment.body):
            context.merged[number] = {**found, "pristine": self._is_pristine(found)}
            return None
        if equal(found, experiment_document(experiment.body, context)):
            return None
        return f"the target has another experiment {number}, named {found['name']!r}"

    def _number_of(self, body: Body) -> int:
        return self._plan.context.experiments.get(str(body["experiment_id"]), int(body["experiment_id"]))

    def _can_merge(self, found: dict[str, Any], body: Body) -> bool:
        """The default experiment is in every database without anybody's doing: take in that of the source."""
        return bool(found["_id"] == DEFAULT_EXPERIMENT and found["name"] == body["name"])

    def _is_pristine(self, found: dict[str, Any]) -> bool:
        runs = self._target.collection(RunFields)
        untouched = not found.get("tags") and found["lifecycle_stage"] == "active"
        return untouched and patiently(lambda: runs.find_one({"experiment_id": found["_id"]}, {})) is None

    def _place_models(self, models: list[Record]) -> None:
        keys = {model_key(self._target.workspace, each.body["name"]): each for each in models}
        taken = self._names(RegisteredModelFields, [each.body["name"] for each in models])
        for key, model in keys.items():
            name = model.body["name"]
            if name in self._plan.context.models or taken.get(name) in (None, key):
                continue
            if self._conflict(model, f"the target has a registered model named {name!r}"):
                given = self._plan.context.models
                given[name] = self._free_name(RegisteredModelFields, name, given.values())
            else:
                self._plan.context.refused_models[name] = "the target has another model of this name"

    def _conflict(self, record: Record, what: str) -> bool:
        """Note a conflict; whether the record goes under another number or name."""
        self._plan.conflicts.append(Problem(record.kind, record.id, what))
        if self._on_conflict != "rename" and record.kind == "experiment":
            self._plan.context.refused[str(record.body["experiment_id"])] = what
        return self._on_conflict == "rename"

    def _ours(self, collection: str, keys: Iterable[Any]) -> set[Any]:
        items = {item_key(self._journal.id, (collection, key)): key for key in keys}
        found = self._target.find_by_ids(ImportItemFields, items, {"_id": 1})
        return {items[each["_id"]] for each in found}

    def _names(self, declared: Any, names: list[str] | None) -> dict[str, Any]:
        query: dict[str, Any] = {"workspace": self._target.workspace}
        if names is not None:
            query["name"] = {"$in": names}
        collection = self._target.collection(declared)
        found = patiently(lambda: list(collection.find(query, {"name": 1})))
        return {each["name"]: each["_id"] for each in found}

    def _counted(self) -> list[int]:
        """Numbers that the target has given out or holds."""
        experiments = self._target.collection(ExperimentFields)
        below = {"_id": {"$lt": _RANDOM_NUMBERS}}
        last = patiently(lambda: experiments.find_one(below, {"_id": 1}, sort=[("_id", -1)]))
        counter = patiently(lambda: self._target.collection("counters").find_one({"_id": "experiments"}))
        return [last["_id"] if last else 0, int(counter["last"]) if counter else 0]


def refuse_conflicts(plan: Plan) -> None:
    """For --on-conflict fail: say what clashes, before anything is written."""
    if not plan.conflicts:
        return
    named = "; ".join(f"{each.kind} {each.where}: {each.reason}" for each in plan.conflicts[:_NAMED])
    more = f"; and {len(plan.conflicts) - _NAMED} more" if len(plan.conflicts) > _NAMED else ""
    raise ImportConflict(
        f"Nothing was imported, since the target holds other things under names or ids of the source. {named}"
        f"{more}. Choose --on-conflict rename to bring them in under other names and numbers, --on-conflict "
        "skip to leave them out, or another database or prefix."
    )


def free_names(target: ImportTarget, journal: str, plan: Plan) -> None:
    """Let names go that have passed from one experiment of the source to another since the last import."""
    begin_again(target, journal, [("experiments", number) for number in plan.renamed])
    begin_again(target, journal, [(kind.collection, identifier) for kind, identifier in plan.freed])
    for kind, identifier in plan.freed:
        target.check()
        waits = {"$set": {kind.unique: f"{identifier} (an import is renaming it)"}}
        things = target.collection(kind.declared)
        patiently(
            lambda identifier=identifier, waits=waits, things=things: things.update_one(  # type: ignore[misc]
                {"_id": identifier}, waits
            )
        )
    experiments = target.collection(ExperimentFields)
    for number in plan.renamed:
        target.check()
        change = {"$set": {"name": f"{number} (an import is renaming it)"}}
        patiently(lambda number=number, change=change: experiments.update_one({"_id": number}, change))  # type: ignore[misc]


def raise_counter(target: ImportTarget, numbers: Iterable[int]) -> None:
    """Let experiments that are made later have numbers above the imported ones."""
    highest = max((number for number in numbers if number < _RANDOM_NUMBERS), default=0)
    if highest:
        target.check()
        counters = target.collection("counters")
        patiently(
            lambda: counters.update_one({"_id": "experiments"}, {"$max": {"last": highest}}, upsert=True)
        )


def _items_of(source: Source, filters: Filters, phase: str) -> Iterable[Item]:
    for unit in source.units(filters, (phase,)):
        if isinstance(unit, Unit):
            yield from source.read(unit)
