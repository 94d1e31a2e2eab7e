"""A tree as a source: an experiment, a run, a trace or a model is a unit.

::

    mlruns/<experiment>/meta.yaml, tags/, datasets/, models/<logged model>/, traces/<trace>/
    mlruns/<experiment>/<run>/meta.yaml, params/, tags/, metrics/, inputs/, outputs/, artifacts/
    mlruns/.trash/<experiment>/...     deleted experiments
    mlruns/models/<registered model>/meta.yaml, tags/, aliases/, version-<n>/
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.kinds import PHASES
from genesis_flow.importers.records import Filters, Item, Problem, Unit
from genesis_flow.importers.tree.files import META, Damaged, files, folders, read_meta, shown, text, whole
from genesis_flow.importers.tree.registry import read_registered_model
from genesis_flow.importers.tree.runs import read_datasets, read_experiment, read_logged_model, read_run
from genesis_flow.importers.tree.traces import INFO, read_trace

TRASH = ".trash"
MODELS = "models"
# Folders of an experiment that are no runs.
_RESERVED = ("tags", "datasets", "traces", MODELS)
_RUN_ID = re.compile(r"[0-9a-f]{32}")
# The folders of a unit whose files make its fingerprint; artifacts are not read.
_PARTS = {
    "experiment": ("tags",),
    "dataset": ("datasets",),
    "run": ("params", "tags", "metrics", "inputs", "outputs"),
    "logged_model": ("params", "tags", "metrics"),
    "trace": ("request_metadata", "tags", "assessments"),
    "registered_model": ("",),
}


@dataclass(frozen=True, slots=True)
class _Experiment:
    id: str
    path: str
    in_trash: bool
    # In the key of its unit: another one when the tree has the same id in the trash as well.
    key: str


def open_tree(uri: str) -> "TreeSource":
    parts = urlsplit(uri)
    path = Path(unquote(parts.path) if parts.scheme == "file" else uri).expanduser()
    if not path.is_dir():
        raise ImportFailed(f"{shown(path)} is not a folder: name the mlruns folder of MLflow's file store.")
    root = path.resolve()
    if not _is_tree(root):
        hint = f" Did you mean {shown(root / 'mlruns')}?" if _is_tree(root / "mlruns") else ""
        raise ImportFailed(
            f"{shown(root)} is not an mlruns folder: none of its folders has a {META}, and it has no {TRASH}."
            f"{hint}"
        )
    return TreeSource(root)


def _is_tree(root: Path) -> bool:
    return (
        (root / TRASH).is_dir()
        or any(True for _ in root.glob(f"*/{META}"))
        or any(True for _ in root.glob(f"{MODELS}/*/{META}"))
        or any(path.parents[1].name.isdigit() for path in root.glob(f"*/*/{META}"))
    )


class TreeSource:
    parallel = True
    stable_units = True

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self.name = f"file://{shown(root)}"

    def size(self, filters: Filters) -> int | None:
        if filters:
            return None
        experiments = [each for each in self._experiments(filters) if isinstance(each, _Experiment)]
        count = len(experiments)
        for experiment in experiments:
            count += sum(1 for _ in self._run_folders(experiment))
            for parent in ("datasets", MODELS, "traces"):
                found = len(_quietly(os.path.join(experiment.path, parent)))
                count += min(found, 1) if parent == "datasets" else found
        return count + len(_quietly(os.path.join(self._root, MODELS)))

    def units(self, filters: Filters, phases: Collection[str] = PHASES) -> Iterator[Unit | Problem]:
        experiments: list[_Experiment] = []
        for each in self._experiments(filters):
            if isinstance(each, _Experiment):
                experiments.append(each)
            elif "experiment" in phases:
                yield each
        for phase in PHASES:
            if phase not in phases:
                continue
            if phase == "registered_model" and not filters.experiments:
                yield from self._models(filters)
                continue
            for experiment in experiments:
                yield from self._units_of(phase, experiment, filters)

    def fingerprint(self, unit: Unit) -> str | None:
        digest = hashlib.blake2b(digest_size=16)
        try:
            for entry in self._files_of(unit):
                stat = entry.stat(follow_symlinks=False)
                digest.update(f"{entry.path}\n{stat.st_size} {stat.st_mtime_ns}\n".encode(errors="replace"))
        except (OSError, Damaged):
            return None
        return digest.hexdigest()

    def read(self, unit: Unit) -> Iterable[Item]:
        path, experiment_id, experiment_path, in_trash = unit.payload
        match unit.phase:
            case "experiment":
                return read_experiment(path, experiment_id, in_trash=in_trash)
            case "dataset":
                return read_datasets(path, experiment_id)
            case "run":
                return read_run(path, experiment_path, experiment_id)
            case "logged_model":
                return read_logged_model(path, experiment_id)
            case "trace":
                return read_trace(path, experiment_id)
            case _:
                return read_registered_model(path)

    def close(self) -> None:
        """Nothing is held open."""

    def _experiments(self, filters: Filters) -> Iterator[_Experiment | Problem]:
        """The experiments that are wanted; those that are named are looked for by id and by name."""
        active = set()
        for in_trash in (False, True):
            parent = os.path.join(self._root, TRASH) if in_trash else self._root
            odd = _Odd("experiment")
            try:
                names = folders(parent, odd)
            except Damaged as damage:
                yield Problem("experiment", shown(parent), str(damage))
                continue
            # The trash and the models are looked at when their turn comes.
            yield from odd.but_for((TRASH, MODELS) if not in_trash else ())
            for name in names:
                if name.startswith(".") or (name == MODELS and not in_trash):
                    continue
                path = os.path.join(parent, name)
                if not name.isdigit():
                    yield self._no_experiment(path, name)
                    continue
                key = f"{TRASH}/{name}" if in_trash and name in active else name
                if not in_trash:
                    active.add(name)
                if not filters.experiments or name in filters.experiments or _named(path, filters):
                    yield _Experiment(name, path, in_trash, key)

    def _no_experiment(self, path: str, name: str) -> Problem:
        runs = sum(1 for each in _quietly(path) if _RUN_ID.fullmatch(each))
        what = f" ({runs} runs)" if runs else ""
        reason = f"it is no experiment, whose folder has a number for its name; its content{what} is left out"
        return Problem("experiment", shown(path), reason)

    def _units_of(self, phase: str, experiment: _Experiment, filters: Filters) -> Iterator[Unit | Problem]:
        try:
            for path in self._paths(phase, experiment):
                if isinstance(path, Problem):
                    yield path
                    continue
                name = "" if path == experiment.path else f"/{os.path.basename(path)}"
                payload = (path, experiment.id, experiment.path, experiment.in_trash)
                unit = Unit(phase, f"{phase}/{experiment.key}{shown(name)}", payload)
                if (
                    filters.since is None
                    or phase in ("experiment", "dataset")
                    or self._is_recent(unit, filters)
                ):
                    yield unit
        except Damaged as damage:
            yield Problem(phase, shown(experiment.path), str(damage))

    def _paths(self, phase: str, experiment: _Experiment) -> Iterator[str | Problem]:
        match phase:
            case "experiment":
                yield experiment.path
            case "dataset":
                if os.path.lexists(os.path.join(experiment.path, "datasets")):
                    yield experiment.path
            case "run":
                yield from self._run_folders(experiment)
            case "logged_model" | "trace":
                parent = os.path.join(experiment.path, MODELS if phase == "logged_model" else "traces")
                odd = _Odd(phase)
                try:
                    yield from (os.path.join(parent, name) for name in folders(parent, odd))
                except Damaged as damage:
                    yield Problem(phase, shown(parent), str(damage))
                yield from odd.but_for(())

    def _run_folders(self, experiment: _Experiment) -> Iterator[str | Problem]:
        odd = _Odd("run")
        for name in folders(experiment.path, odd):
            path = os.path.join(experiment.path, name)
            if name in _RESERVED or name.startswith("."):
                continue
            if _RUN_ID.fullmatch(name) or os.path.lexists(os.path.join(path, META)):
                yield path
            else:
                yield Problem("run", shown(path), f"it is no run: it has no {META}")
        # These are looked at as parts of the experiment.
        yield from odd.but_for((*_RESERVED, META))

    def _models(self, filters: Filters) -> Iterator[Unit | Problem]:
        parent = os.path.join(self._root, MODELS)
        odd = _Odd("registered_model")
        try:
            for name in folders(parent, odd):
                path = os.path.join(parent, name)
                unit = Unit("registered_model", f"registered_model/{shown(name)}", (path, "", "", False))
                if filters.since is None or self._is_recent(unit, filters):
                    yield unit
            yield from odd.but_for(())
        except Damaged as damage:
            yield Problem("registered_model", shown(parent), str(damage))

    def _is_recent(self, unit: Unit, filters: Filters) -> bool:
        """Whether it began, or any of its files changed, since then."""
        since = filters.since or 0
        try:
            if any(
                entry.stat(follow_symlinks=False).st_mtime_ns >= since * 1_000_000
                for entry in self._files_of(unit)
            ):
                return True
            meta = read_meta(os.path.join(unit.payload[0], INFO if unit.phase == "trace" else META))
            began = whole(meta, "start_time", "creation_timestamp", "creation_time", "timestamp_ms")
        except (OSError, Damaged):
            return True  # to be read, and reported
        return began is not None and began >= since

    def _files_of(self, unit: Unit) -> Iterator["os.DirEntry[str]"]:
        path = unit.payload[0]
        if unit.phase in ("experiment", "run", "logged_model", "trace"):
            with os.scandir(path) as entries:
                name = INFO if unit.phase == "trace" else META
                yield from (entry for entry in entries if entry.name == name)
        for part in _PARTS[unit.phase]:
            yield from files(os.path.join(path, part))


class _Odd:
    """Collects what is neither a folder nor a regular file where things of a kind are looked for."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._found: list[tuple[str, str]] = []

    def __call__(self, path: str, reason: str) -> None:
        self._found.append((path, reason))

    def but_for(self, names: Collection[str]) -> Iterator[Problem]:
        for path, reason in self._found:
            name = os.path.basename(path)
            if name not in names and not name.startswith("."):
                yield Problem(self._kind, shown(path), reason)


def _named(path: str, filters: Filters) -> bool:
    try:
        return text(read_meta(os.path.join(path, META)), "name") in filters.experiments
    except Damaged:
        return False


def _quietly(path: str) -> list[str]:
    try:
        return folders(path)
    except Damaged:
        return []
