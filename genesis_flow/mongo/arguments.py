"""The arguments of callers: texts are texts, and an argument of another wrong type is named.

A dictionary or an expression in the place of a text would be an operator to MongoDB.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set, ValuesView
from typing import Any, NamedTuple

from mlflow.entities import (
    Assessment,
    Dataset,
    DatasetInput,
    ExperimentTag,
    GatewayEndpointModelConfig,
    GatewayEndpointTag,
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
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import mask

_SLIPS = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)

_SEVERAL = {"list", "set", "Sequence"}
_WORDS_OF_TEXTS = {"str", "int", "None", *_SEVERAL}
_PLAIN = (str, int, float, type(None))
# The fields of an entity that are texts.
_TEXTS_OF: tuple[tuple[type | tuple[type, ...], tuple[str, ...]], ...] = (
    (
        (ExperimentTag, InputTag, LoggedModelParameter, LoggedModelTag, ModelVersionTag, Param, RunTag),
        ("key", "value"),
    ),
    ((RegisteredModelTag, GatewayEndpointTag), ("key", "value")),
    (GatewayEndpointModelConfig, ("model_definition_id",)),
    ((LoggedModelInput, LoggedModelOutput), ("model_id",)),
    (Dataset, ("name", "digest", "source_type", "source", "schema", "profile")),
    (Assessment, ("name", "trace_id", "run_id", "span_id", "assessment_id", "overrides", "rationale")),
    (TraceInfo, ("trace_id", "client_request_id", "request_preview", "response_preview")),
    (PromptVersion, ("name", "version")),
    (ModelVersion, ("name", "version", "source", "run_id", "run_link", "description", "model_id")),
)


class TextParameter(NamedTuple):
    place: int
    takes_several: bool
    default: Any


def text_parameters(function: Callable[..., Any]) -> dict[str, TextParameter]:
    """The parameters of a method that take a text, or several, with their places behind ``self``."""
    return {
        parameter.name: TextParameter(place, bool(words & _SEVERAL), parameter.default)
        for place, parameter in enumerate(parameters(function))
        if "str" in (words := _words(_annotation(parameter))) and words <= _WORDS_OF_TEXTS
    }


def check_texts(texts: dict[str, TextParameter], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if an argument is neither a text nor a number nor, where it may be, a collection of such."""
    for name, (place, takes_several, default) in texts.items():
        value = args[place] if place < len(args) else kwargs.get(name)
        # MLflow's default for what is not to be changed is an object of its own.
        if isinstance(value, _PLAIN) or value is default or (takes_several and _are_plain(value)):
            continue
        raise invalid(f"{name} must be a text, not {_shown(name, value)}.")


def is_slip(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> bool:
    """Whether Python or MLflow raise this where a value is not what they take it for.

    A call with too many arguments, or too few, is none of a method: it stays a TypeError, as in any class.
    """
    if not isinstance(error, _SLIPS) and type(error) is not Exception:
        return False
    try:
        inspect.signature(function).bind(None, *args, **kwargs)
    except TypeError:
        return False
    return True


def slipped(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> MlflowException:
    """What to tell the caller of a method in which Python itself tripped."""
    for parameter, value in _given(function, args, kwargs):
        declared = _annotation(parameter)
        if value is not parameter.default and not _fits(value, declared):
            shown = _shown(parameter.name, value)
            return invalid(f"{parameter.name} must be {declared}, not {shown}.")
    return MlflowException(
        f"{function.__name__} cannot work with what it was given: {type(error).__name__}: "
        f"{mask(str(error))}. Compare the arguments with MLflow's documentation, and report this if they are "
        "as it says.",
        INTERNAL_ERROR,
    )


def _shown(name: str, value: Any) -> str:
    return (
        f"what was given, a {type(value).__name__}"
        if "secret" in name or "password" in name
        else mask(f"{value!r:.100}")
    )


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those behind ``self``."""
    return list(inspect.signature(function).parameters.values())[1:]


def _given(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterable[tuple[inspect.Parameter, Any]]:
    for place, parameter in enumerate(parameters(function)):
        if place < len(args):
            yield parameter, args[place]
        elif parameter.name in kwargs:
            yield parameter, kwargs[parameter.name]


def _fits(value: Any, declared: str) -> bool:
    """Whether a value is of the type of which this is the text: its class is named there, or a base of it."""
    outer, inner = _outer_and_inner(declared)
    if "Any" in outer or value is None:
        return "Any" in outer or "None" in outer
    names = {each.__name__ for each in type(value).__mro__} | ({"float"} if isinstance(value, int) else set())
    if not names & outer:
        return False
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value
    is_collection = isinstance(value, Mapping | Sequence | Set) and not isinstance(value, str | bytes)
    return not inner or not is_collection or all(_fits(each, inner) for each in parts)


def _outer_and_inner(declared: str) -> tuple[set[str], str]:
    """The words of a type outside of brackets, and what is in the brackets."""
    inner = declared[declared.find("[") + 1 : declared.rfind("]")] if "[" in declared else ""
    return _words(declared.replace(inner, "") if inner else declared), inner


def _words(declared: str) -> set[str]:
    return set(re.findall(r"\w+", declared))


def check_entities(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if what an entity that is to be stored has as a text is none."""
    for argument in (*args, *kwargs.values()):
        several = isinstance(argument, Sequence) and not isinstance(argument, str | bytes)
        for entity in argument if several else (argument,):
            _check_entity(entity)
            if isinstance(entity, DatasetInput):
                check_entities((entity.dataset, entity.tags), {})


def _check_entity(entity: Any) -> None:
    check_entity_texts(entity, *texts_of(entity.__class__))


def check_entity_texts(entity: Any, *names: str) -> None:
    for name in names:
        value = getattr(entity, name)
        if type(value) is not str and not isinstance(value, _PLAIN):
            raise invalid(f"{name} of {type(entity).__name__} must be a text, not {value!r:.100}.")


@functools.cache
def texts_of(kind: Any) -> tuple[str, ...]:
    return next((names for kinds, names in _TEXTS_OF if issubclass(kind, kinds)), ())


def _are_plain(value: Any) -> bool:
    # MLflow's server hands on the lists of its requests, which are protobuf's and no lists of Python's.
    if isinstance(value, Sequence | Set | ValuesView) and not isinstance(value, bytes | bytearray):
        return all(isinstance(each, _PLAIN) for each in value)
    return False


def _annotation(parameter: inspect.Parameter) -> str:
    """The type of a parameter as MLflow's documentation writes it, without the modules."""
    annotation = parameter.annotation
    if inspect.isclass(annotation):
        return str(annotation.__name__)
    return re.sub(r"\w+\.", "", str(annotation))
