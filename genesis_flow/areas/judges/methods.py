"""Scorers.

Documents: one a scorer in ``scorers``, with all its versions. So a version and its number come in one atom:
of those who register at once, whoever finds that the latest version is no longer the one that was read looks
again. The number of the highest version is given out again when that is deleted, as in MLflow. Its versions
share 16 MB, which is thousands of judges of a few kB; pages read the latest version alone.

Round trips: get, list and versions one (the experiment and the scorers, side by side), register and delete
two, and delete two more (is it a guardrail). One more where a model is an endpoint of the AI gateway, for
all scorers of a call together.
"""

import asyncio
import uuid
from typing import Any

from mlflow.entities import ScorerVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.time import get_current_time_millis
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.experiments.guards import experiment_number, require_active_experiment
from genesis_flow.areas.judges.documents import (
    HAS_VERSIONS,
    LATEST,
    NAME_ORDER,
    ScorerFields,
    scorer_version,
)
from genesis_flow.areas.judges.endpoints import refuse_guardrail
from genesis_flow.areas.judges.texts import as_given, to_keep, to_tell
from genesis_flow.compat.validation import parse_experiment_ids
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, call_token, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped


class Scorers(Area):
    @property
    def _scorers(self) -> Collection:
        return self.database.collection(ScorerFields)

    @mutation
    async def register_scorer(self, experiment_id: str, name: str, serialized_scorer: str) -> ScorerVersion:
        """Register a scorer, or a new version of it."""
        from mlflow.genai.scorers.scorer_utils import validate_scorer_name

        validate_scorer_name(name)
        named = {"experiment_id": experiment_number(experiment_id), "name": name}
        _, scorer = await asyncio.gather(
            require_active_experiment(self.database, experiment_id), self._find_scorer(named, LATEST)
        )
        kept, given_text, endpoint_id = await to_keep(self.database, serialized_scorer)
        if is_repetition() and (made := await self._registered_before(named)) is not None:
            return scorer_version(made, made["versions"][0], given_text)
        version = {
            "version": _next_number(scorer),
            "text": kept,
            "creation_time": get_current_time_millis(),
            "call": call_token(),
        }
        binding = {"endpoint_id": endpoint_id, "time": version["creation_time"]} if endpoint_id else None
        while (written := await self._write_version(named, scorer, version, binding)) is None:
            scorer = await self._find_scorer(named, LATEST)
            version["version"] = _next_number(scorer)
        return scorer_version(written, version, given_text)

    async def _registered_before(self, named: Document) -> Document | None:
        """The scorer with the version alone that an earlier attempt of this call has registered."""
        mine = {"$elemMatch": {"call": call_token()}}
        return await self._find_scorer({**named, "versions": mine}, {**LATEST, "versions": mine})

    async def _write_version(
        self, named: Document, scorer: Document | None, version: Document, binding: Document | None
    ) -> Document | None:
        """The scorer that has the version now; none if others have changed its versions meanwhile."""
        if scorer is None:
            fields = ScorerFields(
                _id=str(uuid.uuid4()),
                workspace=current_workspace(),
                versions=[version],
                binding=binding,
                **named,
            )
            scorer = fields.model_dump(by_alias=True, exclude_none=True)
            try:
                await self._scorers.insert_one(scorer)
            except DuplicateKeyError:
                return None
            return scorer
        change: Document = {"$push": {"versions": version}}
        if binding is not None:
            change["$set"] = {"binding": binding}
        last = version["version"] - 1
        unchanged: Document = (
            {"versions.version": {"$eq": last, "$not": {"$gt": last}}} if last else {"versions": []}
        )
        written = await self._scorers.update_one(scoped({"_id": scorer["_id"], **unchanged}), change)
        return scorer if written.matched_count else None

    async def _find_scorer(self, query: Document, projection: Document) -> Document | None:
        scorer: Document | None = await self._scorers.find_one(scoped(query), projection)
        return scorer

    @operation
    async def list_scorers(self, experiment_id: str) -> list[ScorerVersion]:
        """The latest version of each scorer of an experiment, by name."""
        number = experiment_number(experiment_id)
        _, scorers = await asyncio.gather(
            require_active_experiment(self.database, number), self._latest_scorers([number])
        )
        return await self._told_scorers(scorers)

    @operation
    async def list_scorers_across_experiments(self, experiment_ids: list[str]) -> list[ScorerVersion]:
        """The latest version of each scorer of several experiments, by experiment and name."""
        if not experiment_ids:
            return []
        return await self._told_scorers(await self._latest_scorers(parse_experiment_ids([*experiment_ids])))

    async def _latest_scorers(self, experiments: list[int]) -> list[Document]:
        query = scoped({"experiment_id": {"$in": experiments}, **HAS_VERSIONS})
        return await self._scorers.find(query, LATEST, sort=NAME_ORDER, batch_size=BATCH).to_list()

    @operation
    async def list_scorer_versions(self, experiment_id: str, name: str) -> list[ScorerVersion]:
        """All versions of a scorer, ascending."""
        return await self._told_scorers([await self._known_scorer(experiment_id, name, None, {"online": 0})])

    @operation
    async def get_scorer(
        self, experiment_id: str, name: str, version: int | str | None = None
    ) -> ScorerVersion:
        """A version of a scorer, the latest unless one is named."""
        wanted = LATEST if version is None else {**LATEST, "versions": {"$elemMatch": _numbered(version)}}
        scorer = await self._known_scorer(experiment_id, name, version, wanted)
        (version_there,) = scorer["versions"]
        return scorer_version(scorer, version_there, await as_given(self.database, version_there["text"]))

    async def _known_scorer(
        self, experiment_id: str, name: str, version: int | str | None, projection: Document
    ) -> Document:
        """The scorer, if it is seen and has that version."""
        query = {"experiment_id": experiment_number(experiment_id), "name": name, **_having(version)}
        _, scorer = await asyncio.gather(
            require_active_experiment(self.database, experiment_id), self._find_scorer(query, projection)
        )
        if scorer is None:
            raise await self._unknown_scorer(experiment_id, name, version)
        return scorer

    async def _told_scorers(self, scorers: list[Document]) -> list[ScorerVersion]:
        """The versions of the scorers, with their endpoints by name."""
        versions = [(scorer, version) for scorer in scorers for version in scorer["versions"]]
        texts = await to_tell(self.database, [version["text"] for _, version in versions])
        return [
            scorer_version(scorer, version, text)
            for (scorer, version), text in zip(versions, texts, strict=True)
        ]

    @mutation
    async def delete_scorer(self, experiment_id: str, name: str, version: int | str | None = None) -> None:
        """Delete a version of a scorer, or the scorer with all of them and its online scoring."""
        number = await require_active_experiment(self.database, experiment_id)
        query = scoped({"experiment_id": number, "name": name, **_having(version)})
        there = await self._scorers.find_one(query, {"_id": 1})
        if there is not None:
            await refuse_guardrail(self.database, there["_id"], version)
        if version is None:
            gone = (await self._scorers.delete_one(query)).deleted_count
        else:
            taken = {"$pull": {"versions": _numbered(version)}}
            gone = (await self._scorers.update_one(query, taken)).matched_count
        if not gone and not is_repetition():
            raise await self._unknown_scorer(experiment_id, name, version)

    async def _unknown_scorer(
        self, experiment_id: str, name: str, version: int | str | None
    ) -> MlflowException:
        named = {"experiment_id": experiment_number(experiment_id), "name": name}
        # MLflow names the version only of a scorer that it knows, and knows those without versions too.
        tells_version = version is not None and await self._find_scorer(named, {"_id": 1}) is not None
        what = f"'{name}' and version {version}" if tells_version else f"'{name}'"
        return MlflowException(
            f"Scorer with name {what} not found for experiment {experiment_id}.", RESOURCE_DOES_NOT_EXIST
        )

    @operation
    async def resolve_endpoint_in_scorer(self, scorer_version: ScorerVersion) -> ScorerVersion:
        """The scorer with the name of its endpoint in place of the id; without a model if that is gone."""
        text = scorer_version._serialized_scorer
        text_with_name = await as_given(self.database, text)
        if text_with_name == text:
            return scorer_version
        return ScorerVersion(
            experiment_id=scorer_version.experiment_id,
            scorer_name=scorer_version.scorer_name,
            scorer_version=scorer_version.scorer_version,
            serialized_scorer=text_with_name,
            creation_time=scorer_version.creation_time,
            scorer_id=scorer_version.scorer_id,
        )


def _next_number(scorer: Document | None) -> int:
    versions: list[Any] = scorer["versions"] if scorer else []
    return int(versions[-1]["version"]) + 1 if versions else 1


def _having(version: int | str | None) -> Document:
    return HAS_VERSIONS if version is None else {"versions": {"$elemMatch": _numbered(version)}}


def _numbered(version: int | str) -> Document:
    """The condition on a version, whose number may be given as a text; any other text is no number."""
    text = str(version).strip()
    return {"version": int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text}
