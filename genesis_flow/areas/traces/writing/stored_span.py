"""A span as MLflow stores it: what ``translate_span_when_storing`` makes of it, mostly without calling it.

That function asks a dozen translators of other libraries' conventions for a dozen attributes each, for every
span. None of these begins with ``mlflow.``. If all attributes of a span do, and it has no events, then it is
changed in three ways at most, each of which shows in the attributes themselves:

- a value that was made JSON twice loses one layer (until MLflow 3.17; then servers see to that);
- the model is taken from inputs or outputs that name one;
- the cost is computed from the model and its tokens.

A span that may need any of these goes to MLflow's function, as do all spans under a version of MLflow that
this was not compared with, and those with a value that is too deep or a number that is too long to be read,
for which the function fails.
"""

import json
import re
from typing import cast

from mlflow.entities import Span
from mlflow.tracing.constant import SpanAttributeKey
from mlflow.tracing.otel.translation import translate_span_when_storing

from genesis_flow.compat.version import SPANS_COMPARED, VERSION
from genesis_flow.documents.plain import Document

_COMPARED = VERSION in SPANS_COMPARED

OWN = "mlflow."
# The beginning of JSON text that spells a string which may be JSON text of a string, an object or an array.
_MAY_BE_JSON_TWICE = re.compile(r'[ \t\n\r]*" *[\\{\[]').match
# Shorter text is not too deep for JSON's reader.
_CERTAINLY_READABLE = 250


class _Converted:
    """A span whose dictionary is there already."""

    def __init__(self, stored: Document) -> None:
        self._stored = stored

    def to_dict(self) -> Document:
        return self._stored


def stored_span(span: Span) -> Document:
    """The dictionary of a span as it is to be stored."""
    return shortened(span) if _COMPARED else translated(span)


def certain_form(span: Span) -> Document | None:
    """The dictionary of a span as it is to be stored, if that is certain without asking MLflow."""
    if not _COMPARED:
        return None
    stored: Document = span.to_dict()
    return stored if is_final(stored) else None


def shortened(span: Span) -> Document:
    stored: Document = span.to_dict()
    return stored if is_final(stored) else translated(cast(Span, _Converted(stored)))


def translated(span: Span) -> Document:
    result: Document = translate_span_when_storing(span)
    return result


def is_final(stored: Document) -> bool:
    """Whether it is certain that MLflow's function would leave the dictionary of a span as it is."""
    attributes = stored.get("attributes")
    if not attributes or stored.get("events"):
        return False
    for key, value in attributes.items():
        if type(value) is not str or not key.startswith(OWN) or _MAY_BE_JSON_TWICE(value):
            return False
        if len(value) > _CERTAINLY_READABLE and not _is_readable(value):
            return False
    if SpanAttributeKey.MODEL in attributes:
        return SpanAttributeKey.CHAT_USAGE not in attributes or SpanAttributeKey.LLM_COST in attributes
    return not any(
        _may_name_model(attributes.get(key, ""))
        for key in (SpanAttributeKey.INPUTS, SpanAttributeKey.OUTPUTS)
    )


def _may_name_model(text: str) -> bool:
    """Whether JSON text may be an object with the key ``model``, which can also be spelled with escapes."""
    return '"model"' in text or "\\u" in text


def _is_readable(text: str) -> bool:
    """Whether JSON's reader takes a text or refuses it in the usual way."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return True
