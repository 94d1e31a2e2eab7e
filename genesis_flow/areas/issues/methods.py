"""Issues.

Round trips: create two (its experiment, the issue) and one for a source run, get one, update one, two if
metadata change.
"""

from typing import Any

from mlflow.entities.issue import Issue, IssueSeverity, IssueStatus
from mlflow.utils.time import get_current_time_millis
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.experiments.guards import find_active_experiment, find_run
from genesis_flow.areas.issues.counts import new_mark
from genesis_flow.areas.issues.documents import IssueFields, issue_entity, keys_of, rank_of
from genesis_flow.compat.issues import SOURCE_RUNS_OF_THE_EXPERIMENT, check_fields, refuse_newer
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import escape, unescape_map
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.operation import Area, call_token, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_once


class Issues(Area):
    @property
    def _issues(self) -> Collection:
        return self.database.collection(IssueFields)

    @mutation
    async def create_issue(
        self,
        experiment_id: str,
        name: str,
        description: str,
        status: IssueStatus = IssueStatus.PENDING,
        severity: IssueSeverity | None = None,
        root_causes: list[str] | None = None,
        source_run_id: str | None = None,
        categories: list[str] | None = None,
        created_by: str | None = None,
        *,
        issue_id: str | None = None,
        last_seen_timestamp: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Issue:
        """Say that something is wrong in an experiment's traces."""
        refuse_newer(issue_id=issue_id, last_seen_timestamp=last_seen_timestamp, metadata=metadata)
        check_fields(
            name=name,
            status=status,
            severity=severity,
            categories=categories,
            metadata=metadata,
            last_seen_timestamp=last_seen_timestamp,
            issue_id=issue_id,
            created_by=created_by,
        )
        if not (isinstance(name, str) and isinstance(description, str)):
            raise invalid("An issue needs a name and a description. Give it both.")
        fields = _texts(name, description) | _status(status) | _severity(severity)
        number = await find_active_experiment(self.database, experiment_id)
        if source_run_id is not None:
            await self._check_source_run(source_run_id, number)
        now = get_current_time_millis()
        document = IssueFields(
            _id=issue_id or f"iss-{call_token()}",
            workspace=current_workspace(),
            experiment_id=number,
            root_causes=root_causes or None,
            source_run=source_run_id,
            categories=categories or None,
            category_keys=keys_of(categories or []),
            metadata=_escaped(metadata) if metadata else None,
            created_by=created_by,
            created_time=now,
            last_updated_by=created_by,
            last_update_time=now,
            last_seen=now if last_seen_timestamp is None else last_seen_timestamp,
            call=call_token(),
            **_begun(issue_id is None),
            **fields,
        ).model_dump(by_alias=True, exclude_none=True)
        return issue_entity(await self._insert(document))

    async def _insert(self, document: Document) -> Document:
        taken = entities.taken(f"An issue with ID '{document['_id']}' is there already. Choose another ID.")
        try:
            made = await insert_once(self._issues, document)
        except DuplicateKeyError as error:
            raise taken() from error
        if made.get("call") != document["call"]:
            raise taken()
        return made

    async def _check_source_run(self, run_id: str, experiment: int) -> None:
        run = await find_run(self.database, run_id, {"experiment_id": 1})
        if SOURCE_RUNS_OF_THE_EXPERIMENT and run["experiment_id"] != experiment:
            raise invalid(f"Source run {run_id} must belong to the experiment of the issue.")

    @operation
    async def get_issue(self, issue_id: str) -> Issue:
        """The issue with this id, also in a deleted experiment."""
        return issue_entity(await entities.find(self._issues, {"_id": issue_id}, _unknown(issue_id)))

    @mutation
    async def update_issue(
        self,
        issue_id: str,
        status: IssueStatus | None = None,
        name: str | None = None,
        description: str | None = None,
        severity: IssueSeverity | None = None,
        *,
        categories: list[str] | None = None,
        last_seen_timestamp: int | None = None,
        last_updated_by: str | None = None,
        metadata: dict[str, str] | None = None,
        delete_metadata_keys: list[str] | None = None,
    ) -> Issue:
        """Change what is given: metadata by key, and the time when it was last seen only forward."""
        newer = {
            "categories": categories,
            "last_seen_timestamp": last_seen_timestamp,
            "last_updated_by": last_updated_by,
            "metadata": metadata,
            "delete_metadata_keys": delete_metadata_keys,
        }
        refuse_newer(**newer)
        check_fields(name=name, status=status, severity=severity, **newer)
        change = _texts(name, description)
        if status is not None:
            change |= _status(status)
        if severity is not None:
            change |= _severity(severity)
        if last_updated_by is not None:
            change["last_updated_by"] = last_updated_by
        update: Document = {"$set": change | {"last_update_time": get_current_time_millis()}}
        if categories:
            change = {"categories": list(dict.fromkeys(categories)), "category_keys": keys_of(categories)}
            update["$set"] |= change
        elif categories is not None:
            update["$set"]["category_keys"] = []
            update["$unset"] = {"categories": ""}
        if last_seen_timestamp is not None:
            update["$max"] = {"last_seen": last_seen_timestamp}
        if metadata is None and not delete_metadata_keys:
            query = {"_id": issue_id}
            return issue_entity(await entities.change(self._issues, query, update, _unknown(issue_id)))
        return await self._update_metadata(issue_id, update, metadata or {}, delete_metadata_keys or [])

    async def _update_metadata(
        self, issue_id: str, update: Document, given: dict[str, str], removed: list[str]
    ) -> Issue:
        """Merge metadata into those that are there, again if somebody else has changed them meanwhile."""
        while True:
            seen = await entities.find(self._issues, {"_id": issue_id}, _unknown(issue_id), {"metadata": 1})
            merged = unescape_map(seen.get("metadata")) | given
            for key in removed:
                merged.pop(key, None)
            check_fields(metadata=merged)
            unchanged = scoped({"_id": issue_id, "metadata": seen.get("metadata")})
            changed = {**update, "$set": {**update["$set"], "metadata": _escaped(merged)}}
            issue = await self._issues.find_one_and_update(unchanged, changed, return_document=True)
            if issue is not None:
                return issue_entity(issue)


def _texts(name: str | None, description: str | None) -> Document:
    """The fields for those of the texts that are given."""
    fields: Document = {}
    if name is not None:
        fields |= {"name": name, "name_lower": name.lower()}
    if description is not None:
        fields["description"] = description
    return fields


def _begun(is_drawn: bool) -> Document:
    """The count of its traces that an issue is born with. Nobody refers to an id that was drawn just now."""
    return {"traces": 0, "counted": True} if is_drawn else {"changing": [new_mark(call_token())]}


def _status(status: Any) -> Document:
    try:
        return {"status": IssueStatus(status).value}
    except ValueError as error:
        raise invalid(f"Invalid issue status: {status!r:.100}. Use pending, rejected or resolved.") from error


def _severity(severity: Any) -> Document:
    try:
        known = None if severity is None else IssueSeverity(severity).value
    except ValueError as error:
        levels = ", ".join(level.value for level in IssueSeverity)
        raise invalid(f"Invalid issue severity: {severity!r:.100}. Use one of {levels}.") from error
    return {"severity": known, "rank": rank_of(known)}


def _escaped(metadata: dict[str, Any]) -> dict[str, Any]:
    return {escape(key): value for key, value in metadata.items()}


def _unknown(issue_id: str) -> entities.Refusal:
    return entities.unknown(f"Issue with ID '{issue_id}' not found")
