"""The way back into SQL databases of MLflow: the gateway's secrets (as they are), models and endpoints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchTableError, SQLAlchemyError

from genesis_flow.documents.keys import unescape
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.sql.snapshot import canonical_name

Document = dict[str, Any]

SECRETS, MODELS, ENDPOINTS = "secrets", "model_definitions", "endpoints"
_MAPPINGS, _TAGS = "endpoint_model_mappings", "endpoint_tags"
_MADE = {
    "workspace": "workspace",
    "created_by": "created_by",
    "created_at": "created_time",
    "last_updated_by": "last_updated_by",
    "last_updated_at": "last_update_time",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """A table of named things: the columns with its id and its name, and where the others come from."""

    what: str
    key: str
    name: str
    columns: Mapping[str, str]


_KINDS = {
    SECRETS: _Kind(
        "secret",
        "secret_id",
        "secret_name",
        {
            "encrypted_value": "value",
            "wrapped_dek": "wrapped_dek",
            "kek_version": "kek_version",
            "masked_value": "masked",
            "provider": "provider",
            "auth_config": "auth_config",
        },
    ),
    MODELS: _Kind(
        "model",
        "model_definition_id",
        "name",
        {"provider": "provider", "model_name": "model_name"},
    ),
    ENDPOINTS: _Kind("endpoint", "endpoint_id", "name", {"routing_strategy": "routing_strategy"}),
}


@dataclass(slots=True)
class Exported:
    """How many things are new there, how many were there, and how many endpoints are not traced there."""

    made: int = 0
    changed: int = 0
    untraced: int = 0


def put(
    uri: str, found: Mapping[str, Sequence[Document]], experiments: Mapping[int, str] | None = None
) -> dict[str, Exported]:
    """Put things into the tables of these names, all in one transaction.

    ``experiments`` has the names of those that endpoints are traced in.
    """
    try:
        url = sa.make_url(uri)
    except ArgumentError as error:
        raise ImportFailed("DATABASE is not an SQLAlchemy URI such as sqlite:///mlflow.db.") from error
    name = canonical_name(url)
    try:
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
            raise NoSuchTableError  # before SQLite makes an empty file
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            target = _Target(name, connection, experiments or {})
            return {table: target.put_all(table, documents) for table, documents in found.items()}
    except NoSuchTableError as error:
        raise ImportFailed(
            f"{name} has no table for {' or '.join(found)}: run `mlflow db upgrade` on it, with the MLflow "
            "of its server."
        ) from error
    except ModuleNotFoundError as error:
        raise ImportFailed(
            f"The driver of {name} is not installed ({error}): install it with pip."
        ) from error
    except SQLAlchemyError as error:
        # Its own words may have the rows.
        raise ImportFailed(
            f"{name} did not take the {' and '.join(found)} ({type(error).__name__}), and has none of them: "
            "check that it can be written, and that it is of the MLflow that is installed."
        ) from error


class _Target:
    """A database of MLflow, within one transaction."""

    def __init__(self, name: str, connection: sa.Connection, experiments: Mapping[int, str]) -> None:
        self._name = name
        self._connection = connection
        self._experiments = experiments
        self._metadata = sa.MetaData()

    def put_all(self, table: str, documents: Sequence[Document]) -> Exported:
        done = Exported()
        for document in documents:
            more: Document = {}
            if table == MODELS:
                more = {"secret_id": self._secret_of(document)}
            elif table == ENDPOINTS:
                more = self._of_endpoint(document, done)
            if self._put(table, document, more):
                done.changed += 1
            else:
                done.made += 1
            if table == ENDPOINTS:
                self._put_parts(document)
        return done

    def _table(self, name: str) -> sa.Table:
        return sa.Table(name, self._metadata, autoload_with=self._connection)

    def _put(self, name: str, document: Document, more: Document) -> bool:
        """Whether it was there."""
        kind, table = _KINDS[name], self._table(name)
        fields = {kind.key: "_id", kind.name: "name", **kind.columns, **_MADE}
        row = {column: document.get(field) for column, field in fields.items() if column in table.c} | more
        of_name = [table.c[kind.name] == row[kind.name]]
        if "workspace" in row:
            of_name.append(table.c.workspace == row["workspace"])
        is_it = table.c[kind.key] == row[kind.key]
        seen = self._connection.execute(
            sa.select(table.c[kind.key], table.c[kind.name]).where(sa.or_(is_it, sa.and_(*of_name)))
        ).all()
        # The encryption of a secret is bound to its id and its name.
        is_another = (
            (lambda other: tuple(other) != (row[kind.key], row[kind.name]))
            if name == SECRETS
            else (lambda other: other[0] != row[kind.key])
        )
        if any(map(is_another, seen)):
            reason = ", and the encryption is bound to both" if name == SECRETS else ""
            raise ImportFailed(
                f"{self._name} has another {kind.what} of the name or the id of {row[kind.name]!r}{reason}: "
                "delete it there first. Nothing was copied."
            )
        change = table.update().where(is_it) if seen else table.insert()
        self._connection.execute(change.values(row))
        return bool(seen)

    def _secret_of(self, model: Document) -> Any:
        """None if it is gone, whether or not its deletion came to the models that named it."""
        secrets = self._table(SECRETS)
        is_it = secrets.c.secret_id == model.get("secret_id")
        return self._connection.execute(sa.select(secrets.c.secret_id).where(is_it)).scalar()

    def _of_endpoint(self, document: Document, done: Exported) -> Document:
        """What is not one field: an endpoint is traced in the experiment of the same name."""
        experiment = None
        if (number := document.get("experiment_id")) is not None:
            table = self._table("experiments")
            same = [table.c.name == self._experiments.get(number)]
            if "workspace" in table.c:
                same.append(table.c.workspace == document["workspace"])
            experiment = self._connection.execute(sa.select(table.c.experiment_id).where(*same)).scalar()
        is_tracked = bool(document["usage_tracking"]) and experiment is not None
        done.untraced += bool(document["usage_tracking"]) and not is_tracked
        fallback = document.get("fallback")
        return {
            "fallback_config_json": None if fallback is None else json.dumps(fallback),
            "experiment_id": experiment,
            "usage_tracking": is_tracked,
        }

    def _put_parts(self, document: Document) -> None:
        """The models and the tags of an endpoint, in the place of those that it had there."""
        own = {"endpoint_id": document["_id"]}
        models = [
            own
            | {
                "mapping_id": each["mapping_id"],
                "model_definition_id": each["model_definition_id"],
                "weight": each["weight"],
                "linkage_type": each["linkage_type"],
                "fallback_order": each.get("fallback_order"),
                "created_by": each.get("created_by"),
                "created_at": each["created_time"],
            }
            for each in document["models"]
        ]
        tags = [own | {"key": unescape(key), "value": value} for key, value in document["tags"].items()]
        for name, rows in ((_MAPPINGS, models), (_TAGS, tags)):
            table = self._table(name)
            self._connection.execute(table.delete().where(table.c.endpoint_id == document["_id"]))
            if rows:
                self._connection.execute(table.insert(), rows)
