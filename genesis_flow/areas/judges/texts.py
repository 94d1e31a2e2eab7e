"""Serialized scorers: the model in them, and the endpoint of a gateway that it may name.

Kept are endpoints by their ids, so that a scorer follows its endpoint to a new name; told are names. MLflow's
helpers are imported in the functions: they load what a client that logs metrics does not need.
"""

import json
from collections.abc import Sequence
from typing import Any

from genesis_flow.areas.judges.endpoints import endpoint_id_of, endpoint_names
from genesis_flow.core.errors import invalid
from genesis_flow.mongo.connection import Database

Parsed = dict[str, Any]


def parsed(text: str) -> Parsed:
    """A scorer that is about to be registered, if it can be one."""
    try:
        data = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(f"A serialized scorer must be JSON: {error}.") from error
    if not isinstance(data, dict):
        raise invalid(f"A serialized scorer must be an object in JSON, not a {type(data).__name__}.")
    return data


def model_of(data: Parsed) -> str | None:
    from mlflow.genai.scorers.scorer_utils import extract_model_from_serialized_scorer

    try:
        model: str | None = extract_model_from_serialized_scorer(data)
    except (AttributeError, RecursionError) as error:
        raise invalid("What a serialized scorer says of its judge must be an object in JSON.") from error
    return model


def with_model(data: Parsed, model: str | None) -> str:
    from mlflow.genai.scorers.scorer_utils import update_model_in_serialized_scorer

    return json.dumps(update_model_in_serialized_scorer(data, model))


def endpoint_in(data: Parsed) -> str | None:
    """The name or id of a gateway's endpoint, if that is the scorer's model."""
    from mlflow.genai.scorers.scorer_utils import extract_endpoint_ref, is_gateway_model

    model = model_of(data)
    return extract_endpoint_ref(model) if model is not None and is_gateway_model(model) else None


def at_endpoint(data: Parsed, endpoint: str) -> str:
    from mlflow.genai.scorers.scorer_utils import build_gateway_model

    return with_model(data, build_gateway_model(endpoint))


async def to_keep(database: Database, text: str) -> tuple[str, str, str | None]:
    """What to keep of a scorer, what to answer, and the id of its endpoint."""
    from mlflow.genai.scorers.scorer_utils import validate_scorer_model

    data = parsed(text)
    validate_scorer_model(model_of(data))
    name = endpoint_in(data)
    if name is None:
        return text, text, None
    endpoint_id = await endpoint_id_of(database, name)
    return at_endpoint(data, endpoint_id), at_endpoint(data, name), endpoint_id


async def to_tell(database: Database, texts: Sequence[str], *, keeps_unknown: bool = False) -> list[str]:
    """The texts, each written anew, with the names of their endpoints.

    Without an endpoint that is there a scorer has no model, or keeps the id as it is.
    """
    scorers = [json.loads(text) for text in texts]
    ids = [endpoint_in(data) for data in scorers]
    names = await endpoint_names(database, (each for each in ids if each is not None))
    return [
        json.dumps(data)
        if endpoint_id is None or (keeps_unknown and endpoint_id not in names)
        else at_endpoint(data, names[endpoint_id])
        if endpoint_id in names
        else with_model(data, None)
        for data, endpoint_id in zip(scorers, ids, strict=True)
    ]


async def as_given(database: Database, text: str) -> str:
    """A single text: as it was registered, if it names no endpoint."""
    if endpoint_in(json.loads(text)) is None:
        return text
    return (await to_tell(database, [text]))[0]
