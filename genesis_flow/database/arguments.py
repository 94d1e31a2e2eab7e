"""Texts are texts: a dictionary or an expression in the place of one would be an operator to MongoDB."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence, Set, ValuesView
from typing import Any

from mlflow.entities import (
    Assessment,
    Dataset,
    DatasetInput,
    ExperimentTag,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelParameter,
    LoggedModelTag,
    Param,
    RunTag,
    TraceInfo,
)
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, PromptVersion, RegisteredModelTag

from genesis_flow.core.errors import invalid

_WORDS_OF_TEXTS = {"str", "int", "None", "list", "set", "Sequence"}
_PLAIN = (str, int, float, type(None))
# What of an entity is a text.
_TEXTS_OF: tuple[tuple[type | tuple[type, ...], tuple[str, ...]], ...] = (
    (
        (ExperimentTag, InputTag, LoggedModelParameter, LoggedModelTag, ModelVersionTag, Param, RunTag),
        ("key", "value"),
    ),
    (RegisteredModelTag, ("key", "value")),
    ((LoggedModelInput, LoggedModelOutput), ("model_id",)),
    (Dataset, ("name", "digest", "source_type", "source", "schema", "profile")),
    (Assessment, ("name", "trace_id", "run_id", "span_id", "assessment_id", "overrides", "rationale")),
    (TraceInfo, ("trace_id", "client_request_id", "request_preview", "response_preview")),
    (PromptVersion, ("name", "version")),
    (ModelVersion, ("name", "version", "source", "run_id", "run_link", "description", "model_id")),
)


def text_parameters(function: Callable[..., Any]) -> dict[str, int]:
    """The parameters of a method that take a text, or several, with their places behind ``self``."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {
        parameter.name: place
        for place, parameter in enumerate(parameters)
        if "str" in (words := set(re.findall(r"\w+", _annotation(parameter)))) and words <= _WORDS_OF_TEXTS
    }


def check_texts(texts: dict[str, int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if one of the arguments is neither a text nor a number nor a collection of such."""
    for name, place in texts.items():
        value = args[place] if place < len(args) else kwargs.get(name)
        if type(value) is not str and not _is_plain(value):
            raise invalid(f"{name} must be a text, not {value!r:.100}.")


def check_entities(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The same for the texts in entities that are to be stored."""
    for argument in (*args, *kwargs.values()):
        several = isinstance(argument, Sequence) and not isinstance(argument, str | bytes)
        for entity in argument if several else (argument,):
            _check_entity(entity)
            if isinstance(entity, DatasetInput):
                check_entities((entity.dataset, entity.tags), {})


def _check_entity(entity: Any) -> None:
    for name in _texts_of(entity.__class__):
        value = getattr(entity, name)
        if type(value) is not str and not isinstance(value, _PLAIN):
            raise invalid(f"{name} of {type(entity).__name__} must be a text, not {value!r:.100}.")


@functools.cache
def _texts_of(kind: Any) -> tuple[str, ...]:
    return next((names for kinds, names in _TEXTS_OF if issubclass(kind, kinds)), ())


def _is_plain(value: Any) -> bool:
    # MLflow's server hands on the lists of its requests, which are protobuf's and no lists of Python's.
    if isinstance(value, Sequence | Set | ValuesView) and not isinstance(value, str | bytes | bytearray):
        return all(isinstance(each, _PLAIN) for each in value)
    return isinstance(value, _PLAIN)


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation.__name__ if annotation in (str, int) else str(annotation)
