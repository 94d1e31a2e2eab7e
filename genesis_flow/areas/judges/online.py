"""Online scoring: which traces a scorer is to score by itself, as they come.

The settings are in the scorer's document, so they go with it, and there is never more than one set of them.

Round trips: settings of scorers one, a change of them two; the scorers that are active, which the scheduler
asks for each minute, one by an index that holds nothing else, and one for the names of their endpoints.
"""

import asyncio
import json
import uuid
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.search_utils import SearchTraceUtils
from pymongo import ReturnDocument

from genesis_flow.areas.experiments.guards import experiment_number, require_active_experiment
from genesis_flow.areas.judges.documents import HAS_VERSIONS, LATEST, ScorerFields, online_config
from genesis_flow.areas.judges.texts import endpoint_in, to_tell
from genesis_flow.compat import scorers
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, mutation, operation
from genesis_flow.mongo.scoping import scoped

if TYPE_CHECKING:
    from mlflow.genai.scorers.online.entities import OnlineScorer, OnlineScoringConfig


class OnlineScoring(Area):
    @property
    def _scorers_online(self) -> Collection:
        return self.database.collection(ScorerFields)

    @mutation
    async def upsert_online_scoring_config(
        self, experiment_id: str, scorer_name: str, sample_rate: float, filter_string: str | None = None
    ) -> "OnlineScoringConfig":
        """Say which part of the new traces a scorer is to score; a rate of 0 stops it."""
        _check_settings(sample_rate, filter_string)
        named = {"experiment_id": experiment_number(experiment_id), "name": scorer_name}
        _, scorer = await asyncio.gather(
            require_active_experiment(self.database, experiment_id),
            self._scorers_online.find_one(scoped(named), LATEST),
        )
        if scorer is not None:
            if sample_rate > 0 and scorer["versions"]:
                _check_online(scorer_name, scorer["versions"][-1]["text"])
            online = {"id": uuid.uuid4().hex, "sample_rate": float(sample_rate)}
            if filter_string is not None:
                online["filter_string"] = filter_string
            scorer = await self._scorers_online.find_one_and_update(
                scoped({"_id": scorer["_id"]}),
                {"$set": {"online": online}},
                {"experiment_id": 1, "online": 1},
                return_document=ReturnDocument.AFTER,
            )
        if scorer is None:
            raise MlflowException(
                f"Scorer with name '{scorer_name}' not found for experiment {experiment_id}.",
                RESOURCE_DOES_NOT_EXIST,
            )
        return online_config(scorer)

    @operation
    async def get_online_scoring_configs(self, scorer_ids: list[str]) -> "list[OnlineScoringConfig]":
        """The settings of those of the scorers that have any."""
        if not scorer_ids:
            return []
        query = scoped({"_id": {"$in": [*scorer_ids]}, "online": {"$exists": True}})
        wanted = {"experiment_id": 1, "online": 1}
        configurations = await self._scorers_online.find(query, wanted, batch_size=BATCH).to_list()
        return [online_config(scorer) for scorer in configurations]

    @operation
    async def get_active_online_scorers(self) -> "list[OnlineScorer]":
        """The scorers that are to score new traces, in all experiments."""
        from mlflow.genai.scorers.online.entities import OnlineScorer

        query = scoped({"online.sample_rate": {"$gt": 0}, **HAS_VERSIONS})
        scorers = await self._scorers_online.find(query, LATEST, batch_size=BATCH).to_list()
        active = [scorer for scorer in scorers if _can_be_online(scorer)]
        texts = await to_tell(
            self.database, [scorer["versions"][-1]["text"] for scorer in active], keeps_unknown=True
        )
        return [
            OnlineScorer(
                name=scorer["name"],
                serialized_scorer=text,
                online_config=online_config(scorer),
                scorer_version=scorer["versions"][-1]["version"],
            )
            for scorer, text in zip(active, texts, strict=True)
        ]


def _check_settings(sample_rate: float, filter_string: str | None) -> None:
    if not isinstance(sample_rate, int | float):
        raise invalid(f"sample_rate must be a number, got {type(sample_rate).__name__}")
    if not 0.0 <= sample_rate <= 1.0:
        raise invalid(f"sample_rate must be between 0.0 and 1.0, got {sample_rate}")
    if filter_string:
        if not isinstance(filter_string, str):
            raise invalid(f"filter_string must be a string, got {type(filter_string).__name__}")
        SearchTraceUtils.parse_search_filter_for_search_traces(filter_string)


def _check_online(name: str, text: str) -> None:
    """Raise unless this scorer can score traces as they come."""
    data = json.loads(text)
    if scorers.runs_in_container(data):
        refusal = scorers.refused_in_container(name, data)
    elif endpoint_in(data) is None:
        refusal = (
            f"Scorer '{name}' does not use a gateway model. Automatic evaluation is only supported for "
            "scorers that use gateway models."
        )
    else:
        refusal = scorers.wants_expectations(name, text)
    if refusal is not None:
        raise invalid(refusal)


def _can_be_online(scorer: Document) -> bool:
    """Whether the latest version can still do what an earlier one was set to."""
    data = json.loads(scorer["versions"][-1]["text"])
    if endpoint_in(data) is not None:
        return True
    return scorers.is_custom(data) and scorers.told_to_run(scorer["name"], scorer["experiment_id"], data)
