"""The journal of one source: what it has brought so far, and what was asked of each run."""

import hashlib
import re
import time
from collections.abc import Iterator
from typing import Any

from genesis_flow.documents.imports import (
    ImportJournalFields,
    ImportProblemFields,
    ImportUnitFields,
    journal_key,
)
from genesis_flow.documents.keys import children_of, escape, unescape
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.records import Problem
from genesis_flow.importers.target import ImportTarget, patiently
from genesis_flow.importers.workspaces import are_kept, target_workspace
from genesis_flow.importers.writers import Context
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.ledger import who

RUNNING = "running"
DONE = "done"
INCOMPLETE = "incomplete"
STOPPED = "stopped"
ROLLING_BACK = "rolling back"
ROLLED_BACK = "rolled back"
_SESSIONS_KEPT = 100


def journal_id(source: str, workspace: str) -> str:
    """The journal of a source has the same id each time, so that two commands cannot begin two."""
    digest = hashlib.blake2b(f"{workspace}\n{source}".encode(), digest_size=4).hexdigest()
    name = re.sub(r"[^a-z0-9]+", "-", source.lower().rstrip("/").rpartition("/")[2].partition("?")[0])
    return f"{name.strip('-')[:40] or 'import'}-{digest}"


def now() -> int:
    return int(time.time() * 1000)


class Journal:
    """One journal document; ``document`` is empty when the source was never imported."""

    def __init__(self, target: ImportTarget, key: str, source: str = "") -> None:
        self.target = target
        self.id = key
        self.source = source
        self._collection = target.collection(ImportJournalFields)
        self.document = self.read()

    @classmethod
    def of_source(cls, target: ImportTarget, source: str) -> "Journal":
        return cls(target, journal_id(source, target.workspace), source)

    @classmethod
    def existing(cls, target: ImportTarget, key: str) -> "Journal":
        """That of an earlier import; where workspaces are kept, of any of them."""
        journal = cls(target, key)
        workspace = journal.document.get("workspace")
        if workspace is not None and are_kept():
            target.workspace = workspace
        if not journal.document or workspace != target.workspace:
            known = ", ".join(sorted(each["_id"] for each in all_journals(target)))
            raise ImportFailed(
                f"There is no import journal {key!r} in the target: the known ones are {known or 'none'}."
            )
        journal.source = journal.document["source"]
        return journal

    def read(self) -> dict[str, Any]:
        return patiently(lambda: self._collection.find_one({"_id": self.id})) or {}

    @property
    def state(self) -> str | None:
        state: str | None = self.document.get("state")
        return state

    @property
    def experiments(self) -> dict[str, int]:
        return dict(self.document.get("experiments") or {})

    @property
    def names(self) -> dict[str, str]:
        return dict(self.document.get("names") or {})

    @property
    def models(self) -> dict[str, str]:
        return {unescape(key): name for key, name in (self.document.get("models") or {}).items()}

    @property
    def questions(self) -> dict[str, str]:
        return {unescape(key): made for key, made in (self.document.get("questions") or {}).items()}

    @property
    def made_workspace(self) -> dict[str, Any] | None:
        made: dict[str, Any] | None = self.document.get("made_workspace")
        return made

    def note_workspace(self, made: dict[str, Any] | None) -> None:
        """That the import made its workspace, so that a rollback removes it."""
        if made is not None:
            self._update({"$set": {"made_workspace": made}})

    def forget_workspace(self) -> None:
        self._update({"$unset": {"made_workspace": ""}})

    @property
    def merged(self) -> dict[int, dict[str, Any]]:
        return {each["_id"]: each for each in self.document.get("merged") or []}

    def begin(self, asked: dict[str, Any]) -> None:
        """Note that a run begins, and what was asked of it."""
        if self.state == ROLLING_BACK:
            raise ImportFailed(
                f"A rollback of this import was interrupted: finish it with `genesis-migrate import "
                f"--rollback {self.id}`, then import again."
            )
        session = {"began": now(), "who": who(), **asked}
        self._update(
            {
                "$set": {"state": RUNNING, "last_update_time": now()},
                "$setOnInsert": {
                    "workspace": self.target.workspace,
                    "source": self.source,
                    "created_time": now(),
                    "experiments": {},
                    "names": {},
                    "models": {},
                    "questions": {},
                    "merged": [],
                },
                "$push": {"sessions": {"$each": [session], "$slice": -_SESSIONS_KEPT}},
            },
            upsert=True,
        )

    def map_names(self, context: Context) -> None:
        """Note what cannot keep its number or name, before anything is written under another."""
        kept = {source: number for source, number in context.experiments.items() if source != str(number)}
        self._update(
            {
                "$set": {
                    "experiments": kept,
                    "names": context.names,
                    "models": {escape(key): name for key, name in context.models.items()},
                    "questions": {escape(key): made for key, made in context.questions.items()},
                    "merged": list(context.merged.values()),
                }
            }
        )

    def end(self, state: str, did: dict[str, Any]) -> None:
        last = len(self.document["sessions"]) - 1
        fields = {f"sessions.{last}.{key}": value for key, value in did.items()}
        self._update(
            {"$set": {"state": state, "last_update_time": now(), f"sessions.{last}.ended": now(), **fields}}
        )

    def set_state(self, state: str) -> None:
        self._update({"$set": {"state": state, "last_update_time": now()}})

    def forget_merged(self, left: dict[int, dict[str, Any]]) -> None:
        """After a rollback: what was merged is no more, but for what it left."""
        self._update({"$set": {"merged": list(left.values())}})

    def problems(self, limit: int = 0) -> Iterator[Problem]:
        """What could not be brought over, of all that was ever read of the source."""
        found = self.target.collection(ImportProblemFields).find({"_id": children_of(self.id)}, limit=limit)
        for each in found:
            yield Problem(each["kind"], each["where"], each["reason"], each["size"])

    def count_problems(self) -> int:
        query = {"_id": children_of(self.id)}
        return patiently(lambda: self.target.collection(ImportProblemFields).count_documents(query))

    def units_with_problems(self) -> set[str]:
        """The keys of the units that could not be brought over completely."""
        units = self.target.collection(ImportUnitFields)
        had = {"_id": children_of(self.id), "problems": {"$gt": 0}}
        found = patiently(lambda: list(units.find(had, {"_id": 1})))
        return {each["_id"].removeprefix(journal_key(self.id, "")) for each in found}

    def forget_units(self, keys: set[str]) -> None:
        """Units that the source does not have any more, and so their problems."""
        for key in sorted(keys):
            unit = journal_key(self.id, key)
            self.target.delete(ImportProblemFields, {"_id": children_of(unit)})
            self.target.delete(ImportUnitFields, {"_id": unit})

    def _update(self, change: dict[str, Any], *, upsert: bool = False) -> None:
        self.target.check()
        patiently(lambda: self._collection.update_one({"_id": self.id}, change, upsert=upsert))
        self.document = self.read()


def journals(config: MigrateConfig) -> list[dict[str, Any]]:
    """What was imported into the target, oldest first."""
    with opened(config, creates=False) as connected:
        target = ImportTarget(connected.db, config.settings.prefix, target_workspace())
        return [
            {
                "journal": each["_id"],
                **{key: each[key] for key in ("source", "state", "created_time", "last_update_time")},
                "workspace": each["workspace"],
                "sessions": len(each["sessions"]),
            }
            for each in sorted(all_journals(target), key=lambda each: int(each["created_time"]))
        ]


def all_journals(target: ImportTarget) -> list[dict[str, Any]]:
    query = {} if are_kept() else {"workspace": target.workspace}
    return list(target.collection(ImportJournalFields).find(query))
