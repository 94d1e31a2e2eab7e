"""An ``mlruns`` tree, read once more: one file after another, with nothing of the importing reader."""

import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from genesis_flow.importers.verify.entities import (
    Entity,
    Fields,
    Troubles,
    Use,
    context_of,
    counted,
    input_fields,
    is_prompt,
    mapped,
    trace_metadata,
)
from genesis_flow.importers.verify.histories import POINT, Point
from genesis_flow.importers.verify.tree_values import (
    Meta,
    assessment_of,
    breaks_off,
    milliseconds_of,
    said_in,
    told_in,
)
from genesis_flow.importers.verify.wanted import Wanted

# Whether the file of an experiment could be read: no key of such a file.
_READABLE = "\0readable"
NOT_RUNS = ("tags", "datasets", "traces", "models")
STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
MODEL_STATUSES = {"PENDING": 1, "READY": 2, "FAILED": 3, "UPLOAD_FAILED": 3}
RUN_NAME = "mlflow.runName"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(Exception):
    """A file that does not say what it should; the message says why."""


class TreeSource:
    """The entities of a tree, kind by kind; what cannot be read lands in ``troubles``."""

    kinds = (
        "experiment",
        "run",
        "dataset",
        "logged_model",
        "trace",
        "assessment",
        "registered_model",
        "model_version",
    )

    def __init__(self, root: Path, wanted: Wanted) -> None:
        self.root = root
        self.wanted = wanted
        self.troubles = Troubles()
        # A tree holds nothing that a target has no place for.
        self.left_out = Troubles()
        self.complete = wanted.from_time is None
        self._experiments = {path: meta for path, meta in self._find_experiments() if self._chosen(meta)}

    def entities(self, kind: str) -> Iterator[Entity]:
        if kind in ("registered_model", "model_version"):
            # Models belong to no experiment.
            if not self.wanted.experiments:
                yield from self._registered_models() if kind == "registered_model" else self._model_versions()
            return
        read = {
            "experiment": self._experiment,
            "run": self._runs,
            "dataset": self._datasets,
            "logged_model": self._logged_models,
            "trace": self._traces,
            "assessment": self._assessments,
        }[kind]
        for folder, meta in self._experiments.items():
            yield from read(folder, meta)

    def points(self, run: Entity) -> Iterator[tuple[str, bytes]]:
        """The points of all metrics of a run: portions of rows, by key."""
        folder = run.handle / "metrics"
        for path in self._files(folder):
            key = path.relative_to(folder).as_posix()
            try:
                for rows in self._rows(path):
                    yield key, rows
            except OSError as exc:
                self._trouble("metric", path, exc.strerror or str(exc))

    def latest(self, run: Entity) -> dict[str, Point] | None:
        """A tree keeps histories alone."""

    def close(self) -> None:
        """Nothing is held open."""

    # Experiments and what lies in their folders

    def _find_experiments(self) -> Iterator[tuple[Path, Meta]]:
        for parent in (self.root, self.root / ".trash"):
            for folder in self._folders(parent):
                if folder.name in (".trash", "models"):
                    continue
                if not folder.name.isdigit():
                    if (folder / "meta.yaml").exists():
                        self._trouble("experiment", folder, "the name of its folder is not a number")
                    continue
                meta = self._meta("experiment", folder / "meta.yaml", "experiment_id", folder.name)
                default = "active" if parent == self.root else "deleted"
                readable = meta is not None
                meta = {"lifecycle_stage": default, **(meta or {}), "experiment_id": folder.name}
                yield folder, meta | {_READABLE: readable}

    def _chosen(self, meta: Meta) -> bool:
        return self.wanted.experiment(meta["experiment_id"], str(meta.get("name")))

    def _experiment(self, folder: Path, meta: Meta) -> Iterator[Entity]:
        if not meta[_READABLE]:
            return  # what it contains is compared nevertheless
        fields = told_in("experiment", meta)
        fields["lifecycle_stage"] = meta["lifecycle_stage"]
        created = meta.get("creation_time") or 0
        fields["creation_time"] = created
        fields["last_update_time"] = meta.get("last_update_time") or created
        fields |= mapped("tags", self._texts("experiment", folder / "tags"))
        yield Entity("experiment", meta["experiment_id"], fields)

    def _runs(self, folder: Path, experiment: Meta) -> Iterator[Entity]:
        for path in self._folders(folder):
            if path.name in NOT_RUNS:
                continue
            meta = self._meta("run", path / "meta.yaml", "run_id", path.name, "run_uuid")
            if meta is None or not self._belongs("run", path, meta, experiment):
                continue
            if self.wanted.since(meta.get("start_time")):
                yield self._run(path, meta, experiment)

    def _belongs(self, kind: str, path: Path, meta: Meta, experiment: Meta) -> bool:
        said, number = meta.get("experiment_id"), experiment["experiment_id"]
        if said is None or str(said) == number:
            return True
        self._trouble(kind, path / "meta.yaml", f"it says experiment {said}, but lies in {number}")
        return False

    def _run(self, path: Path, meta: Meta, experiment: Meta) -> Entity:
        tags = self._texts("run", path / "tags")
        status = meta.get("status", 1)
        stage = meta.get("lifecycle_stage", "active")
        fields: Fields = {
            **told_in("run", meta),
            "experiment_id": experiment["experiment_id"],
            "name": said_in(meta, "run_name") or said_in(meta, "name") or tags.get(RUN_NAME),
            # The target keeps a text and a number where MLflow refuses to show a run without.
            "user_id": said_in(meta, "user_id") or "",
            "status": STATUSES.get(status, str(status)),
            "start_time": meta.get("start_time") or 0,
            "lifecycle_stage": stage,
            "deleted_time": meta.get("deleted_time") if stage == "deleted" else None,
            **mapped("params", self._texts("run", path / "params")),
            **mapped("tags", tags),
            **self._inputs(path, path.parent / "datasets"),
        }
        return Entity("run", path.name, fields, path)

    def _inputs(self, run: Path, datasets: Path) -> Fields:
        uses, models, made = [], [], []
        for folder in self._folders(run / "inputs"):
            meta = self._meta("input", folder / "meta.yaml")
            if meta is None:
                continue
            if meta.get("source_type") == "MODEL":
                models.append(meta.get("source_id"))
                continue
            dataset = self._meta("dataset", datasets / str(meta.get("source_id")) / "meta.yaml")
            if dataset is not None:
                tags = meta.get("tags") or {}
                if not isinstance(tags, dict):
                    self._trouble("input", folder / "meta.yaml", "its tags are no map of names and values")
                    continue
                pairs = [[str(key), value] for key, value in tags.items()]
                uses.append(Use(dataset.get("name"), dataset.get("digest"), pairs, context_of(tags)))
        for folder in self._folders(run / "outputs"):
            meta = self._meta("output", folder / "meta.yaml")
            if meta is not None:
                made.append([meta.get("destination_id") or folder.name, meta.get("step") or 0])
        return input_fields(uses) | counted("model_inputs", models) | counted("model_outputs", made)

    def _datasets(self, folder: Path, experiment: Meta) -> Iterator[Entity]:
        for path in self._folders(folder / "datasets"):
            meta = self._meta("dataset", path / "meta.yaml")
            if meta is not None:
                fields = told_in("dataset", meta) | {"experiment_id": experiment["experiment_id"]}
                name = f"{experiment['experiment_id']}/{meta.get('name')}/{meta.get('digest')}"
                yield Entity("dataset", name, fields)

    def _logged_models(self, folder: Path, experiment: Meta) -> Iterator[Entity]:
        for path in self._folders(folder / "models"):
            meta = self._meta("logged_model", path / "meta.yaml", "model_id", path.name)
            if meta is None or not self._belongs("logged_model", path, meta, experiment):
                continue
            status = meta.get("status", 1)
            if not self.wanted.since(meta.get("creation_timestamp")):
                continue
            fields: Fields = {
                **told_in("logged_model", meta),
                "experiment_id": experiment["experiment_id"],
                "status": status if isinstance(status, int) else MODEL_STATUSES.get(str(status), 0),
                "lifecycle_stage": meta.get("lifecycle_stage", "active"),
                **mapped("params", self._texts("logged_model", path / "params")),
                **mapped("tags", self._texts("logged_model", path / "tags")),
                **self._model_points(path / "metrics"),
            }
            yield Entity("logged_model", path.name, fields)

    def _model_points(self, folder: Path) -> Fields:
        points = []
        for path in self._files(folder):
            key = path.relative_to(folder).as_posix()
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                try:
                    parts = line.decode().split(" ")
                    if len(parts) not in (4, 6):
                        raise ValueError
                    name, digest = parts[4:] or (None, None)
                    value = float(parts[1])
                    point = [parts[3], key, int(parts[0]), int(parts[2]), name, digest]
                except ValueError:
                    self._trouble("metric", path, f"line {number} is no point of a metric of a model")
                    continue
                points.append([*point, repr(value)])
        return counted("metrics", points)

    # Traces

    def _trace_folders(self, folder: Path) -> Iterator[tuple[Path, str, Meta]]:
        for path in self._folders(folder / "traces"):
            meta = self._meta("trace", path / "trace_info.yaml")
            if meta is None:
                continue
            trace_id = meta.get("trace_id") or meta.get("request_id") or path.name
            if self.wanted.since(milliseconds_of(meta, "timestamp_ms", "request_time")):
                yield path, str(trace_id), meta

    def _traces(self, folder: Path, experiment: Meta) -> Iterator[Entity]:
        for path, trace_id, meta in self._trace_folders(folder):
            duration = meta.get("execution_time_ms", meta.get("execution_duration_ms"))
            fields: Fields = {
                "experiment_id": experiment["experiment_id"],
                "request_time": milliseconds_of(meta, "timestamp_ms", "request_time"),
                "execution_duration": duration,
                "state": meta.get("status") or meta.get("state"),
                **{
                    name: meta.get(name)
                    for name in ("client_request_id", "request_preview", "response_preview")
                },
                **mapped("tags", self._texts("trace", path / "tags")),
                **trace_metadata(self._texts("trace", path / "request_metadata")),
                "generation": 1,
            }
            yield Entity("trace", trace_id, fields)

    def _assessments(self, folder: Path, experiment: Meta) -> Iterator[Entity]:
        for path, trace_id, trace in self._trace_folders(folder):
            of_trace: Fields = {
                "trace_id": trace_id,
                "experiment_id": experiment["experiment_id"],
                "trace_time": milliseconds_of(trace, "timestamp_ms", "request_time"),
            }
            for file in self._files(path / "assessments"):
                meta = self._meta("assessment", file)
                if meta is not None:
                    assessment_id = str(meta.get("assessment_id") or file.stem)
                    yield Entity("assessment", assessment_id, of_trace | assessment_of(meta))

    # The registry

    def _registered_models(self) -> Iterator[Entity]:
        for path in self._folders(self.root / "models"):
            meta = self._meta("registered_model", path / "meta.yaml", "name", path.name)
            if meta is None or not self.wanted.since(meta.get("creation_timestamp")):
                continue
            tags = mapped("tags", self._texts("registered_model", path / "tags"))
            versions = self._versions(path)
            stages = {str(number): stage for number, (stage, _) in versions.items()}
            created = meta.get("creation_timestamp") or 0
            fields: Fields = {
                "name": path.name,
                "description": meta.get("description"),
                "creation_time": created,
                "last_updated_time": meta.get("last_updated_timestamp") or created,
                "last_version": max(self._numbers(path), default=0),
                "latest_unstaged": max(
                    (n for n, (stage, _) in versions.items() if stage == "None"), default=0
                ),
                "is_prompt": is_prompt(tags),
                **tags,
                **mapped("aliases", self._aliases(path, versions)),
                **mapped("stages", {number: stage for number, stage in stages.items() if stage != "None"}),
            }
            yield Entity("registered_model", path.name, fields)

    def _aliases(self, model: Path, versions: Iterable[int]) -> dict[str, int]:
        aliases: dict[str, int] = {}
        for alias, text in self._texts("alias", model / "aliases").items():
            if not text.strip().isdigit():
                self._trouble("alias", model / "aliases" / alias, "it holds no number of a version")
            elif int(text) not in versions:
                self._trouble("alias", model / "aliases" / alias, f"its version {text.strip()} is missing")
            else:
                aliases[alias] = int(text)
        return aliases

    def _numbers(self, model: Path) -> list[int]:
        numbers = (folder.name.removeprefix("version-") for folder in self._folders(model, "version-"))
        return [int(number) for number in numbers if number.isdigit()]

    def _versions(self, model: Path) -> dict[int, tuple[str, Meta]]:
        """Stage and content of each version that was not deleted."""
        versions: dict[int, tuple[str, Meta]] = {}
        for number in self._numbers(model):
            path = model / f"version-{number}" / "meta.yaml"
            meta = self._meta("model_version", path, "version", str(number))
            if meta is not None and (stage := meta.get("current_stage") or "None") != "Deleted_Internal":
                versions[number] = str(stage), meta
        return versions

    def _model_versions(self) -> Iterator[Entity]:
        for path in self._folders(self.root / "models"):
            versions = self._versions(path)
            aliases = self._aliases(path, versions)
            for number, (_, meta) in sorted(versions.items()):
                if not self.wanted.since(meta.get("creation_timestamp")):
                    continue
                tags = mapped("tags", self._texts("model_version", path / f"version-{number}" / "tags"))
                created = meta.get("creation_timestamp") or 0
                fields: Fields = {
                    **told_in("model_version", meta),
                    "name": path.name,
                    "version": number,
                    "creation_time": created,
                    "last_updated_time": meta.get("last_updated_timestamp") or created,
                    "description": meta.get("description"),
                    "status": said_in(meta, "status") or "READY",
                    "model_id": said_in(meta, "model_id"),
                    "is_prompt": is_prompt(tags),
                    **tags,
                    **counted("aliases", (alias for alias, at in aliases.items() if at == number)),
                }
                yield Entity("model_version", f"{path.name}/{number}", fields)

    # Files

    def _folders(self, path: Path, start: str = "") -> list[Path]:
        if not path.is_dir():
            return []
        found = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        return sorted(
            entry
            for entry in found
            if entry.name.startswith(start) and self._is_real(entry) and entry.is_dir()
        )

    def _files(self, path: Path) -> list[Path]:
        if not path.is_dir():
            return []
        return sorted(entry for entry in path.rglob("*") if self._is_real(entry) and entry.is_file())

    def _is_real(self, path: Path) -> bool:
        """Whether it is a file or folder: links lead elsewhere, and pipes have no content."""
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return True
        self._trouble("file", path, "it is no regular file")
        return False

    def _meta(
        self, kind: str, path: Path, key: str | None = None, name: str = "", older_key: str = ""
    ) -> Meta | None:
        """The map in a file, or None; ``key`` must say ``name``, if it is there."""
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                raise Unreadable("it is no regular file")
            text = path.read_bytes().decode()
            meta = yaml.load(text, _LOADER)
            if not isinstance(meta, dict):
                raise Unreadable("it is empty" if meta is None else "it is no map of names and values")
            if key is not None:
                said = meta.get(key) or meta.get(older_key)
                if said is not None and str(said) != name:
                    raise Unreadable(f"its {key} is {said!r}, its folder is {name!r}")
        except FileNotFoundError:
            self._trouble(kind, path, "it is missing")
        except (OSError, UnicodeDecodeError, yaml.YAMLError, Unreadable) as exc:
            self._trouble(kind, path, " ".join(str(exc).split()))
        else:
            return meta
        return None

    def _texts(self, kind: str, folder: Path) -> dict[str, str]:
        """The text of each file below a folder, by its path."""
        texts: dict[str, str] = {}
        for path in self._files(folder):
            try:
                texts[path.relative_to(folder).as_posix()] = path.read_bytes().decode()
            except UnicodeDecodeError:
                self._trouble(kind, path, "it is not UTF-8")
            except OSError as exc:
                self._trouble(kind, path, exc.strerror or str(exc))
        return texts

    def _rows(self, path: Path) -> Iterator[bytes]:
        rows: list[bytes] = []
        bad: list[int] = []
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                parts = line.split()
                if not parts:
                    continue
                try:
                    if len(parts) not in (2, 3, 5) or (breaks_off(line, parts) and number > 1):
                        raise ValueError
                    step = int(parts[2]) if len(parts) > 2 else 0
                    rows.append(POINT.pack(int(parts[0]), step, float(parts[1])))
                except (ValueError, struct.error):
                    bad = [*bad[:1], number]
                if len(rows) == 50_000:
                    yield b"".join(rows)
                    rows = []
        if bad:
            more = "" if len(bad) == 1 else f", and more up to line {bad[-1]}"
            self._trouble("metric", path, f"line {bad[0]} is no point{more}")
        if rows:
            yield b"".join(rows)

    def _trouble(self, kind: str, path: Path, reason: str) -> None:
        self.troubles.add(kind, str(path), reason)
