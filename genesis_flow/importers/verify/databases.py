"""An SQL database of MLflow, read once more: entity after entity, each part by a query of its own.

Knows nothing of the importing reader, and no SQL but ``SELECT columns FROM table WHERE column = value`` and
what ``leftovers`` counts. Columns are those that the tables have, whatever the revision of the schema.
"""

import struct
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import sqlalchemy as sa

from genesis_flow.importers.kinds import KIND, PLAIN
from genesis_flow.importers.verify.entities import (
    COSTS,
    KINDS,
    TOKENS,
    Entity,
    Fields,
    Troubles,
    Use,
    assessment_meaning,
    canonical_error,
    canonical_json,
    canonical_object,
    context_of,
    counted,
    input_fields,
    is_prompt,
    json_value,
    mapped,
    span_meaning,
    trace_metadata,
)
from genesis_flow.importers.verify.histories import POINT, Point, rows_of
from genesis_flow.importers.verify.leftovers import leftovers, workspaces_of
from genesis_flow.importers.verify.plain import plain_entities
from genesis_flow.importers.verify.sql_values import (
    STATES,
    TOKEN_USAGE,
    counts_of,
    is_true,
    number_of,
    oddity,
    snapshot_of,
    truth_of,
    unusable,
    unwrapped,
    whole_of,
)
from genesis_flow.importers.verify.wanted import Wanted

Row = dict[str, Any]

PAGE = 200


class DatabaseSource:
    """The entities of a database, kind by kind; what cannot be read lands in ``troubles``."""

    # The points of metrics come with their run.
    kinds = tuple(kind for kind in KINDS if kind != "metric")

    def __init__(self, engine: sa.Engine, wanted: Wanted) -> None:
        self.troubles = Troubles()
        self.left_out = Troubles()
        self.wanted = wanted
        self.complete = wanted.from_time is None
        # Datasets of other experiments that older versions of MLflow let runs use: by the run's experiment.
        self._borrowed: dict[int, dict[tuple[str, str], Row]] = {}
        self._connection = engine.connect()
        self._connection = snapshot_of(self._connection)
        inspector = sa.inspect(engine)
        self._tables = {
            name: sa.table(name, *(sa.column(column["name"]) for column in inspector.get_columns(name)))
            for name in inspector.get_table_names()
        }
        self._chosen = [
            row
            for row in self.pages("experiments", "experiment_id")
            if wanted.experiment(str(row["experiment_id"]), row["name"])
        ]
        numbers = [row["experiment_id"] for row in self._chosen] if wanted.experiments else None
        for table, reason in leftovers(self._connection, self._tables, numbers, wanted.workspace):
            self.left_out.add(table, f"table {table}", reason)

    def close(self) -> None:
        self._connection.close()

    def workspaces(self) -> dict[str, dict[str, str]]:
        return workspaces_of(self._connection, self._tables)

    def entities(self, kind: str) -> Iterator[Entity]:
        everywhere = {
            "evaluation_dataset": self._evaluation_datasets,
            "evaluation_record": self._evaluation_records,
            "entity_association": self._associations,
            "registered_model": self._registered_models,
            "model_version": self._model_versions,
        }
        if kind in PLAIN and PLAIN[kind].of_experiment:
            for experiment in self._chosen:
                yield from plain_entities(PLAIN[kind], self, experiment)
            return
        if kind in PLAIN:
            everywhere[kind] = lambda: plain_entities(PLAIN[kind], self)
        if kind in everywhere:
            # These belong to no experiment.
            if not self.wanted.experiments:
                yield from everywhere[kind]()
            return
        of_experiment = {
            "experiment": self._experiment,
            "run": self._runs,
            "dataset": self._datasets,
            "logged_model": self._logged_models,
            "trace": self._traces,
            "span": self._spans,
            "assessment": self._assessments,
        }[kind]
        for experiment in self._chosen:
            yield from of_experiment(experiment)

    def points(self, run: Entity) -> Iterator[tuple[str, bytes]]:
        """The points of all metrics of a run: portions of rows, by key."""
        table = self._tables["metrics"]
        query = sa.select(table).where(table.c.run_uuid == run.id)
        options = {"stream_results": True, "yield_per": 20_000}
        rows = self._connection.execute(query, execution_options=options)
        for portion in rows.mappings().partitions():
            by_key: dict[str, list[Point]] = {}
            for row in portion:
                if (point := self._point("metrics", row)) is not None:
                    by_key.setdefault(row["key"], []).append(point)
            for key, points in by_key.items():
                for packed in rows_of(points):
                    yield key, packed
        # Histories are pruned in the table of points: the latest is one more, if it is not among them.
        for key, point in self.latest(run).items():
            for packed in rows_of([point]):
                yield key, packed

    def latest(self, run: Entity) -> dict[str, Point]:
        """What MLflow answers as the latest points."""
        rows = self.rows("latest_metrics", run_uuid=run.id)
        points = {row["key"]: self._point("latest_metrics", row) for row in rows}
        return {key: point for key, point in points.items() if point is not None}

    def _point(self, table: str, row: Mapping[Any, Any]) -> Point | None:
        try:
            value = number_of(row["value"], truth_of(row.get("is_nan")))
            point = whole_of(row["timestamp"]), whole_of(row.get("step") or 0), value
            POINT.pack(*point)
        except (TypeError, ValueError, OverflowError, struct.error):
            self.trouble(table, str(dict(row)), "it is no point")
            return None
        return point

    # Rows

    def rows(self, name: str, /, *order: str, **where: Any) -> list[Row]:
        """All rows with these values; few, since they belong to one thing."""
        table = self._tables.get(name)
        if table is None:
            return []
        query = sa.select(table)
        query = self._in_workspace(query, table)
        for column, value in where.items():
            query = query.where(table.c[column] == value)
        query = query.order_by(*(table.c[column] for column in order))
        rows = [dict(row) for row in self._connection.execute(query).mappings()]
        return [row for row in rows if self._is_readable(name, row)]

    def pages(self, name: str, /, *keys: str, **where: Any) -> Iterator[Row]:
        """Any number of rows, a page at a time behind the last keys."""
        table = self._tables.get(name)
        if table is None:
            return
        # Each workspace may have given the same name.
        sorted_by = [table.c[key] for key in (*keys, *(["workspace"] if "workspace" in table.c else []))]
        query = self._in_workspace(sa.select(table).order_by(*sorted_by).limit(PAGE), table)
        for column, value in where.items():
            query = query.where(table.c[column] == value)
        page = [dict(row) for row in self._connection.execute(query).mappings()]
        while page:
            yield from (row for row in page if self._is_readable(name, row))
            behind: Any = sa.false()
            for key in reversed(sorted_by):
                last = page[-1][key.name]
                behind = (key > last) | ((key == last) & behind)
            page = [dict(row) for row in self._connection.execute(query.where(behind)).mappings()]

    def _in_workspace(self, query: sa.Select[Any], table: sa.TableClause) -> sa.Select[Any]:
        """Of tables that name it; what is in others belongs to rows of these."""
        if self.wanted.workspace is None or "workspace" not in table.c:
            return query
        return query.where(sa.func.coalesce(table.c.workspace, "default") == self.wanted.workspace)

    def _is_readable(self, table: str, row: Row) -> bool:
        """Whether texts are texts and times are numbers; what is not is named, and the row left out."""
        for column, value in row.items():
            if reason := oddity(table, column, value):
                key = {name: row[name] for name in row if name.endswith(("id", "uuid", "key", "name"))}
                self.trouble(table, str(key), f"its {column} is {reason}")
                return False
        return True

    def _is_usable(self, table: str, row: Row, key: str) -> bool:
        if reason := unusable(table, row):
            self.trouble(table, row[key], reason)
        return not reason

    def _map(self, table: str, key: str, value: str, /, **where: Any) -> dict[str, Any]:
        rows = self.rows(table, **where)
        return {row[key]: row[value] for row in rows if row[key] is not None}

    def _told(self, name: str, row: Row) -> Fields:
        """What the columns of a thing say, and the maps that other tables have of it."""
        kind = KIND[name]
        fields = {column.field: row.get(column.name) for column in kind.columns if column.field in kind.told}
        for part in kind.rows:
            if part.shape == "map":
                key, value = (column.name for column in part.columns)
                of_thing = {of: row[own] for of, own in zip(part.owner, kind.key, strict=True)}
                fields |= mapped(part.field, self._map(part.table, key, value, **of_thing))
        return fields

    # Experiments and what belongs to them

    def _experiment(self, row: Row) -> Iterator[Entity]:
        number = row["experiment_id"]
        created = row.get("creation_time") or 0
        fields: Fields = {
            **self._told("experiment", row),
            "creation_time": created,
            "last_update_time": row.get("last_update_time") or created,
        }
        yield Entity("experiment", str(number), fields)

    def _runs(self, experiment: Row) -> Iterator[Entity]:
        number = experiment["experiment_id"]
        for row in self.pages("runs", "run_uuid", experiment_id=number):
            if not self.wanted.since(row["start_time"]):
                continue
            run_id = row["run_uuid"]
            fields = self._told("run", row)
            fields |= {
                "experiment_id": str(number),
                "name": row["name"] or fields.get("tags.mlflow.runName"),
                "deleted_time": row.get("deleted_time") if row["lifecycle_stage"] == "deleted" else None,
                # The target keeps a text and a number where MLflow refuses to show a run without.
                "user_id": row["user_id"] or "",
                "start_time": row["start_time"] or 0,
                **self._inputs(run_id, number),
            }
            yield Entity("run", run_id, fields)

    def _inputs(self, run_id: str, experiment: int) -> Fields:
        uses = []
        for used in self.rows("inputs", destination_type="RUN", destination_id=run_id):
            dataset = self.rows("datasets", dataset_uuid=used["source_id"])
            if not dataset:
                self.trouble("input", str(used["input_uuid"]), "its dataset is missing")
                continue
            if dataset[0]["experiment_id"] != experiment:
                borrowed = self._borrowed.setdefault(experiment, {})
                borrowed[dataset[0]["name"], dataset[0]["digest"]] = dataset[0]
            tags = self._map("input_tags", "name", "value", input_uuid=used["input_uuid"])
            pairs = [[key, value] for key, value in tags.items()]
            uses.append(Use(dataset[0]["name"], dataset[0]["digest"], pairs, context_of(tags)))
        models = self.rows("inputs", source_type="RUN_INPUT", source_id=run_id)
        made = self.rows("inputs", source_type="RUN_OUTPUT", source_id=run_id)
        return {
            **input_fields(uses),
            **counted("model_inputs", (row["destination_id"] for row in models)),
            **counted("model_outputs", ([row["destination_id"], row.get("step") or 0] for row in made)),
        }

    def _datasets(self, experiment: Row) -> Iterator[Entity]:
        number = str(experiment["experiment_id"])
        of_experiment = {"experiment_id": experiment["experiment_id"]}
        own = self.pages("datasets", "dataset_uuid", **of_experiment)
        for row in chain(own, self._borrowed.get(experiment["experiment_id"], {}).values()):
            named = {"name": row["name"], "digest": row["digest"]}
            if row["experiment_id"] != experiment["experiment_id"] and self.rows(
                "datasets", **of_experiment, **named
            ):
                continue  # the experiment has one of the same name and digest
            fields = self._told("dataset", row) | {"experiment_id": number}
            yield Entity("dataset", f"{number}/{row['name']}/{row['digest']}", fields)

    def _logged_models(self, experiment: Row) -> Iterator[Entity]:
        number = experiment["experiment_id"]
        for row in self.pages("logged_models", "model_id", experiment_id=number):
            model_id = row["model_id"]
            if not self.wanted.since(row["creation_timestamp_ms"]):
                continue
            fields = self._told("logged_model", row) | {"experiment_id": str(number)}
            points = []
            for point in self.rows("logged_model_metrics", model_id=model_id):
                where = [point["run_id"], point["metric_name"], point["metric_timestamp_ms"]]
                where += [point["metric_step"], point["dataset_name"], point["dataset_digest"]]
                value = number_of(point["metric_value"], point["metric_value"] is None)
                points.append([*where, repr(value)])
            fields |= counted("metrics", points)
            yield Entity("logged_model", model_id, fields)

    # Traces

    def _trace_rows(self, experiment: Row) -> Iterator[Row]:
        for row in self.pages("trace_info", "request_id", experiment_id=experiment["experiment_id"]):
            if self.wanted.since(row["timestamp_ms"]):
                yield row

    def _traces(self, experiment: Row) -> Iterator[Entity]:
        for row in self._trace_rows(experiment):
            trace_id = row["request_id"]
            tags = self._map("trace_tags", "key", "value", request_id=trace_id)
            metadata = self._map("trace_request_metadata", "key", "value", request_id=trace_id)
            if "trace_name" in row:
                tags["mlflow.traceName"] = row["trace_name"]
            fields: Fields = {
                "experiment_id": str(row["experiment_id"]),
                "request_time": row["timestamp_ms"],
                "execution_duration": row["execution_time_ms"],
                "state": STATES.get(row["status"], row["status"]),
                **{
                    name: row.get(name)
                    for name in ("client_request_id", "request_preview", "response_preview")
                },
                **mapped("tags", tags),
                **trace_metadata(metadata | self._promoted(row, metadata)),
                **self._links(trace_id),
                "generation": 1,
            }
            yield Entity("trace", trace_id, fields)

    def _promoted(self, row: Row, metadata: dict[str, Any]) -> dict[str, Any]:
        """Metadata that newer schemas keep in columns, and one in between kept in a table."""
        if "session_id" not in row:
            said = json_value(metadata.get(TOKEN_USAGE)) or {}
            counted = self._map("trace_metrics", "key", "value", request_id=row["request_id"])
            return {TOKEN_USAGE: canonical_object(said | counts_of(counted))} if counted else {}
        found: dict[str, Any] = {"mlflow.trace.session": row["session_id"]}
        for key, columns in ((TOKEN_USAGE, TOKENS), ("mlflow.trace.cost", COSTS)):
            values = {name: row[name] for name in columns if row.get(name) is not None}
            found[key] = canonical_object(values) if values else None
        return found

    def _links(self, trace_id: str) -> Fields:
        fields: Fields = {}
        for name, kind in (("linked_runs", "run"), ("linked_prompts", "prompt_version")):
            of_trace = {"source_type": "trace", "source_id": trace_id, "destination_type": kind}
            fields |= counted(
                name, {row["destination_id"] for row in self.rows("entity_associations", **of_trace)}
            )
        return fields

    def _spans(self, experiment: Row) -> Iterator[Entity]:
        for trace in self._trace_rows(experiment):
            for row in self.rows("spans", "span_id", trace_id=trace["request_id"]):
                if not self._is_usable("spans", row, "span_id"):
                    continue
                names = ("trace_id", "parent_span_id", "name", "type", "status")
                start, end = row["start_time_unix_nano"], row["end_time_unix_nano"]
                fields: Fields = {
                    **{name: row[name] for name in names},
                    "start_time_unix_nano": start,
                    "end_time_unix_nano": end,
                    "latency": None if end is None else (end - start) // 1_000_000,
                    **span_meaning(row["content"], row),
                    "experiment_id": str(trace["experiment_id"]),
                    "trace_time": trace["timestamp_ms"],
                    "content": canonical_json(row["content"]) or None,
                }
                yield Entity("span", f"{row['trace_id']}|{row['span_id']}", fields)

    def _assessments(self, experiment: Row) -> Iterator[Entity]:
        for trace in self._trace_rows(experiment):
            for row in self.rows("assessments", "assessment_id", trace_id=trace["request_id"]):
                if not self._is_usable("assessments", row, "assessment_id"):
                    continue
                value, metadata = json_value(row["value"]), json_value(row["assessment_metadata"])
                fields: Fields = {
                    **self._told("assessment", row),
                    "valid": is_true(row["valid"]),
                    "experiment_id": str(trace["experiment_id"]),
                    "trace_time": trace["timestamp_ms"],
                    "value": canonical_object(value),
                    "error": canonical_error(json_value(row["error"])),
                    "metadata": canonical_object(metadata) if metadata else None,
                    **assessment_meaning(value, metadata),
                }
                yield Entity("assessment", row["assessment_id"], fields)

    # Evaluation datasets

    def _evaluation_datasets(self) -> Iterator[Entity]:
        for row in self.pages("evaluation_datasets", "dataset_id"):
            fields = self._told("evaluation_dataset", row)
            fields |= {name: canonical_json(row[name]) for name in ("schema", "profile")}
            yield Entity("evaluation_dataset", row["dataset_id"], fields)

    def _evaluation_records(self) -> Iterator[Entity]:
        own = None if self.wanted.workspace is None else self._own_datasets()
        for row in self.pages("evaluation_dataset_records", "dataset_record_id"):
            if own is not None and row["dataset_id"] not in own:
                continue
            if not self._is_usable("evaluation_dataset_records", row, "dataset_record_id"):
                continue
            fields = self._told("evaluation_record", row)
            # The target does not keep the type, which the source says itself.
            del fields["source_type"]
            for name in ("inputs", "source"):
                fields[name] = canonical_json(row.get(name))
            outputs = unwrapped(row.get("outputs"))
            fields["outputs"] = None if outputs is None else canonical_object(outputs)
            for name in ("expectations", "tags"):
                for key, value in (json_value(fields.pop(name)) or {}).items():
                    fields[f"{name}.{key}"] = canonical_object(value)
            yield Entity("evaluation_record", row["dataset_record_id"], fields)

    def _own_datasets(self) -> set[str]:
        return {row["dataset_id"] for row in self.pages("evaluation_datasets", "dataset_id")}

    def _associations(self) -> Iterator[Entity]:
        own = None if self.wanted.workspace is None else self._own_datasets()
        for row in self.pages("entity_associations", "association_id"):
            if own is not None:
                of_dataset = row["source_type"] == "evaluation_dataset"
                if not (row["source_id"] in own if of_dataset else self.wanted.is_default):
                    continue
            if row["source_type"] != "trace":  # those are links of the trace
                fields = self._told("entity_association", row)
                yield Entity("entity_association", row["association_id"], fields)

    # The registry

    def _registered_models(self) -> Iterator[Entity]:
        for row in self.pages("registered_models", "name"):
            if not self.wanted.since(row["creation_time"]):
                continue
            name = row["name"]
            versions = self.rows("model_versions", name=name)
            created = row["creation_time"] or 0
            stages = {
                str(version["version"]): version["current_stage"]
                for version in versions
                if version["current_stage"] not in (None, "", "None", "Deleted_Internal")
            }
            fields = self._told("registered_model", row)
            fields |= {
                "name": name,
                "creation_time": created,
                "last_updated_time": row["last_updated_time"] or created,
                "last_version": max((version["version"] for version in versions), default=0),
                "latest_unstaged": max(
                    (v["version"] for v in versions if v["current_stage"] in (None, "", "None")), default=0
                ),
                "is_prompt": is_prompt(fields),
                **mapped("stages", stages),
            }
            yield Entity("registered_model", name, fields)

    def _model_versions(self) -> Iterator[Entity]:
        for model in self.pages("registered_models", "name"):
            name = model["name"]
            aliases = self._map("registered_model_aliases", "alias", "version", name=name)
            for row in self.rows("model_versions", "version", name=name):
                if row["current_stage"] == "Deleted_Internal" or not self.wanted.since(row["creation_time"]):
                    continue
                number = row["version"]
                created = row["creation_time"] or 0
                fields = self._told("model_version", row)
                fields |= {
                    "name": name,
                    "version": number,
                    "creation_time": created,
                    "last_updated_time": row["last_updated_time"] or created,
                    "is_prompt": is_prompt(fields),
                    **counted("aliases", (alias for alias, at in aliases.items() if at == number)),
                }
                yield Entity("model_version", f"{name}/{number}", fields)

    def trouble(self, kind: str, where: str, reason: str) -> None:
        self.troubles.add(kind, where, reason)
