"""What keeps a root of an import from being taken back: others that stay use it, or are in it."""

from collections.abc import Callable
from typing import Any

from genesis_flow.documents.imports import ImportItemFields
from genesis_flow.documents.keys import children_of
from genesis_flow.importers.kinds import KINDS
from genesis_flow.importers.roots import item_key
from genesis_flow.importers.target import ImportTarget, patiently

# Whose ids say nothing of what is in them: runs before what they hold, as people would look.
_IN_EXPERIMENTS = (
    "runs",
    "traces",
    "logged_models",
    *(kind.collection for kind in KINDS if not kind.own and kind.of_experiment and not kind.within),
    "gateway_endpoints",
)


def users_of(target: ImportTarget, collection: str, roots: list[Any]) -> dict[Any, str]:
    """Which of the roots others refer to, and who; a few questions for all of them."""
    reasons: dict[Any, str] = {}
    for kind in KINDS:
        for user, field in kind.used_by if kind.collection == collection else ():
            users = target.collection(user)
            found = patiently(lambda field=field, users=users: users.distinct(field, {field: {"$in": roots}}))  # type: ignore[misc]
            reason = f"{user.replace('_', ' ')} that stay refer to it"
            reasons |= dict.fromkeys(found, reason)
    return reasons


def _experiment_in_use(target: ImportTarget, journal: str, number: int) -> str | None:
    for collection in _IN_EXPERIMENTS:
        # The question that a mere look at the page makes is nobody's.
        but = {"is_default": {"$ne": True}} if collection == "label_schemas" else {}
        if _any(target, collection, {"experiment_id": number, **but}):
            return f"it holds {collection.replace('_', ' ')} that stay"
    ends = {"destination_type": "experiment", "destination_id": str(number)}
    if _any(target, "entity_associations", ends):
        return "an evaluation dataset belongs to it that stays"
    return None


def _model_in_use(target: ImportTarget, journal: str, key: str) -> str | None:
    if _any(target, "model_versions", {"_id": children_of(key)}):
        return "it has versions that stay"
    return None


def _dataset_in_use(target: ImportTarget, journal: str, key: str) -> str | None:
    dataset = next(iter(target.find_by_ids("datasets", [key], {"name": 1})), None)
    if dataset and _any(target, "runs", {"inputs.name": dataset["name"], "inputs.id": key}):
        return "runs use it that stay"
    return None


def _endpoint_in_use(target: ImportTarget, journal: str, key: str) -> str | None:
    """Guardrails of the import are taken back behind the endpoints that they guard."""
    guardrails = target.collection("gateway_guardrails")
    found = patiently(lambda: guardrails.distinct("_id", {"action_endpoint_id": key}))
    items = [item_key(journal, ("gateway_guardrails", guardrail)) for guardrail in found]
    if len(list(target.find_by_ids(ImportItemFields, items, {"_id": 1}))) < len(found):
        return "guardrails that stay rewrite through it"
    return None


def _any(target: ImportTarget, collection: str, query: dict[str, Any]) -> bool:
    return patiently(lambda: target.collection(collection).find_one(query, {"_id": 1})) is not None


# By collection: who uses one of its documents, asked with the journal that is rolled back.
IN_USE: dict[str, Callable[[ImportTarget, str, Any], str | None]] = {
    "experiments": _experiment_in_use,
    "registered_models": _model_in_use,
    "datasets": _dataset_in_use,
    "gateway_endpoints": _endpoint_in_use,
}
