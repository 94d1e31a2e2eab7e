"""Guardrails: scorers before and after the calls of endpoints.

Round trips: those of an endpoint one, with the endpoints that rewrite; get and list one, or two if one of
them rewrites; create two or three; add and change two; delete two.
"""

from typing import Any

from mlflow.entities.gateway_guardrail import (
    GatewayGuardrail,
    GatewayGuardrailConfig,
    GuardrailAction,
    GuardrailStage,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis
from pymongo import ASCENDING

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.documents import EndpointFields, GuardrailFields, GuardrailOfEndpoint
from genesis_flow.areas.gateway.joining import GUARDED, read
from genesis_flow.areas.gateway.remembered import forget
from genesis_flow.areas.gateway.shared import missing, new, require_endpoint
from genesis_flow.areas.judges.documents import ScorerFields
from genesis_flow.compat.scorers import is_custom_code
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.operation import Area, call_token, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import scoped

_ID_ORDER = [("_id", ASCENDING)]


class GatewayGuardrails(Area):
    @property
    def _guardrails(self) -> Collection:
        return self.database.collection(GuardrailFields)

    @property
    def _guarded(self) -> Collection:
        return self.database.collection(EndpointFields)

    @mutation
    async def create_gateway_guardrail(
        self,
        name: str,
        scorer_id: str,
        scorer_version: int,
        stage: GuardrailStage,
        action: GuardrailAction,
        action_endpoint_id: str | None = None,
        created_by: str | None = None,
    ) -> GatewayGuardrail:
        """Make a guardrail of a version of a scorer."""
        if not isinstance(name, str):
            raise invalid("name must be a text. Give the guardrail one.")
        scorer = await self._scorer_version(scorer_id, scorer_version)
        if is_custom_code(scorer["text"]):
            raise invalid(
                "Gateway guardrails do not support custom scorers defined with the @scorer "
                "decorator. Use a built-in scorer or a judge created with make_judge."
            )
        names = {}
        if action_endpoint_id is not None:
            found = await require_endpoint(self.database, action_endpoint_id, "GatewayEndpoint", {"name": 1})
            names = {action_endpoint_id: found.get("name")}
        document = new(
            GuardrailFields,
            f"gr-{call_token()}",
            created_by,
            name=name,
            scorer=scorer,
            stage=GuardrailStage(stage).value,
            action=GuardrailAction(action).value,
            action_endpoint_id=action_endpoint_id,
        )
        refusal = entities.taken(f"The guardrail {document['_id']} is there already")
        return told.guardrail(await entities.insert(self._guardrails, document, refusal), names)

    async def _scorer_version(self, scorer_id: str, number: int) -> Document:
        """What a guardrail keeps of a scorer."""
        unknown = f"Scorer with ID '{scorer_id}'"
        if isinstance(number, bool) or not isinstance(number, int):
            raise invalid(f"scorer_version must be a whole number, not {number!r:.100}.")
        scorer = await self.database.collection(ScorerFields).find_one(
            scoped({"_id": scorer_id}),
            {"experiment_id": 1, "name": 1, "versions": {"$elemMatch": {"version": number}}},
        )
        if scorer is None:
            raise MlflowException(f"{unknown} not found.", RESOURCE_DOES_NOT_EXIST)
        if not scorer.get("versions"):
            raise MlflowException(f"{unknown} and version {number} not found.", RESOURCE_DOES_NOT_EXIST)
        (version,) = scorer["versions"]
        return {
            "id": scorer_id,
            "version": number,
            "experiment_id": scorer["experiment_id"],
            "name": scorer["name"],
            "text": version["text"],
            "creation_time": version["creation_time"],
        }

    @operation
    async def get_gateway_guardrail(self, guardrail_id: str) -> GatewayGuardrail:
        """A guardrail, by its id."""
        document = await entities.find(self._guardrails, {"_id": guardrail_id}, _unknown(guardrail_id))
        return (await self._told([document]))[0]

    async def _told(self, documents: list[Document]) -> list[GatewayGuardrail]:
        ids = sorted({each["action_endpoint_id"] for each in documents if each.get("action_endpoint_id")})
        names: dict[str, str | None] = {}
        if ids:
            found = self._guarded.find(scoped({"_id": {"$in": ids}}), {"name": 1})
            names = {each["_id"]: each.get("name") for each in await found.to_list()}
        return [told.guardrail(each, names) for each in documents]

    @mutation
    async def delete_gateway_guardrail(self, guardrail_id: str) -> None:
        """Remove a guardrail for good, from all endpoints too."""
        gone = (await self._guardrails.delete_one(scoped({"_id": guardrail_id}))).deleted_count
        if not gone and not is_repetition():
            raise _unknown(guardrail_id)()
        await self._guarded.update_many(
            scoped({"guardrails.guardrail_id": guardrail_id}),
            {"$pull": {"guardrails": {"guardrail_id": guardrail_id}}},
        )
        forget(self.database)

    @operation
    async def list_gateway_guardrails(
        self, max_results: int = SEARCH_MAX_RESULTS_DEFAULT, page_token: str | None = None
    ) -> PagedList[GatewayGuardrail]:
        """The guardrails, by id."""
        validate_max_results(max_results)
        found, token = await entities.page(self._guardrails, {}, _ID_ORDER, max_results, page_token, (str,))
        return PagedList(await self._told(found), token)

    @mutation
    async def add_guardrail_to_endpoint(
        self,
        endpoint_id: str,
        guardrail_id: str,
        execution_order: int | None = None,
        created_by: str | None = None,
    ) -> GatewayGuardrailConfig:
        """Have the calls of an endpoint pass a guardrail."""
        await require_endpoint(self.database, endpoint_id, "Endpoint")
        entry = GuardrailOfEndpoint(
            guardrail_id=guardrail_id,
            order=_order(execution_order),
            created_time=get_current_time_millis(),
            created_by=created_by,
        ).model_dump(exclude_none=True)
        guardrail = await self.get_gateway_guardrail(guardrail_id)
        free = {"_id": endpoint_id, "guardrails.guardrail_id": {"$ne": guardrail_id}}
        added = await self._guarded.update_one(scoped(free), {"$push": {"guardrails": entry}})
        forget(self.database)
        if not added.matched_count and not is_repetition():
            await require_endpoint(self.database, endpoint_id, "Endpoint")
            raise MlflowException(
                f"Guardrail '{guardrail_id}' is already added to endpoint '{endpoint_id}'",
                RESOURCE_ALREADY_EXISTS,
            )
        endpoint = await require_endpoint(
            self.database, endpoint_id, "Endpoint", {"guardrails": 1, "workspace": 1}
        )
        return _config(endpoint, guardrail_id, guardrail)

    @mutation
    async def update_endpoint_guardrail_config(
        self, endpoint_id: str, guardrail_id: str, execution_order: int | None = None
    ) -> GatewayGuardrailConfig:
        """Change the place of a guardrail among those of an endpoint; none puts it behind them."""
        order = _order(execution_order)
        field = "guardrails.$.order"
        changed = await entities.change(
            self._guarded,
            {"_id": endpoint_id, "guardrails.guardrail_id": guardrail_id},
            {"$unset": {field: ""}} if order is None else {"$set": {field: order}},
            _not_added(endpoint_id, guardrail_id),
        )
        forget(self.database)
        return _config(changed, guardrail_id, await self.get_gateway_guardrail(guardrail_id))

    @mutation
    async def remove_guardrail_from_endpoint(self, endpoint_id: str, guardrail_id: str) -> None:
        """Have the calls of an endpoint no longer pass a guardrail."""
        removed = await self._guarded.update_one(
            scoped({"_id": endpoint_id, "guardrails.guardrail_id": guardrail_id}),
            {"$pull": {"guardrails": {"guardrail_id": guardrail_id}}},
        )
        if not removed.matched_count and not is_repetition():
            raise _not_added(endpoint_id, guardrail_id)()
        forget(self.database)

    @operation
    async def list_endpoint_guardrail_configs(self, endpoint_id: str) -> list[GatewayGuardrailConfig]:
        """The guardrails of an endpoint in the order in which calls pass them."""
        found = await read(self.database, EndpointFields, {"_id": endpoint_id}, *GUARDED)
        if not found:
            raise missing("Endpoint", endpoint_id=endpoint_id)()
        return guardrail_configs(found[0])


def guardrail_configs(endpoint: Document) -> list[GatewayGuardrailConfig]:
    """Of an endpoint with what ``GUARDED`` has brought."""
    names = {each["_id"]: each.get("name") for each in endpoint["rewriting"]}
    passed = {each["_id"]: told.guardrail(each, names) for each in endpoint["passed"]}
    found = [each for each in endpoint.get("guardrails") or [] if each["guardrail_id"] in passed]
    found.sort(key=_place)
    return [told.guardrail_config(endpoint, each, passed[each["guardrail_id"]]) for each in found]


def _place(config: Document) -> tuple[bool, int, str]:
    order = config.get("order")
    return (order is None, order or 0, config["guardrail_id"])


def _config(endpoint: Document, guardrail_id: str, guardrail: GatewayGuardrail) -> GatewayGuardrailConfig:
    entry = next((each for each in endpoint["guardrails"] if each["guardrail_id"] == guardrail_id), None)
    if entry is None:
        raise _not_added(endpoint["_id"], guardrail_id)()
    return told.guardrail_config(endpoint, entry, guardrail)


def _order(given: Any) -> int | None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
        raise invalid(f"execution_order must be a whole number, not {given!r:.100}.")
    return given


def _unknown(guardrail_id: str) -> entities.Refusal:
    return missing("Guardrail", guardrail_id=guardrail_id)


def _not_added(endpoint_id: str, guardrail_id: str) -> entities.Refusal:
    return missing("GuardrailConfig", endpoint_id=endpoint_id, guardrail_id=guardrail_id)
