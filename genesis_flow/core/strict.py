"""Strict input: what a text may be where ``enable_input_validation`` asks for more than MLflow does.

Off by default, since MLflow takes what is refused here. ``docs/strict-input.md`` has each rule with an
example. A text is one of the kinds below; ``genesis_flow/mongo/strict.py`` says which argument is of which.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import mask

SWITCH = "MLFLOW_STRICT_INPUT_VALIDATION"
# They name something that MLflow keeps; they are no places.
_REFERENCES = ("runs", "models")
# MLflow's own tags hold what it has to keep, such as the texts of prompts: its limits hold for them.
_OWN_TAGS = "mlflow."
_DECODED_AT_MOST = 5

_LINE_ENDS = "\t\n\r"
# Characters that change the order in which a line is shown: a name could be read as another one.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")


class Kind(Enum):
    """What a text is for."""

    NAME = "a name, a key or an id: one line, from which paths and links are made"
    TEXT = "words for people, values and filters: lines of any number"
    BODY = "a document, a secret or a token: only what cannot be in any text is refused"
    PLACE = "a URI or a path"
    LOCATION = "a URI or a path at which artifacts are kept"
    TAG = "the value of a tag"


_PATHS = (Kind.NAME, Kind.PLACE, Kind.LOCATION)


@dataclass(frozen=True, slots=True)
class StrictInput:
    """The limits of ``[security]``."""

    max_name_length: int
    max_tag_value_length: int
    max_text_length: int
    artifact_schemes: tuple[str, ...]

    def check(self, kind: Kind, name: str, text: str) -> None:
        """Raise if a text breaks a rule of its kind; ``name`` is the argument's."""
        for problem in self._problems(kind, text):
            raise invalid(f"{name} {problem}, or set {SWITCH}=false.")

    def check_tag(self, name: str, key: str, text: str) -> None:
        self.check(Kind.NAME, f"the key of {name}", key)
        own = isinstance(key, str) and key.startswith(_OWN_TAGS)
        self.check(Kind.BODY if own else Kind.TAG, f"{name} {mask(key)!r:.100}", text)

    def _problems(self, kind: Kind, text: str) -> Iterator[str]:
        yield from _unseen(text, may_have_lines=kind not in _PATHS)
        if kind in _PATHS and climbs(text, in_uri=kind is not Kind.NAME):
            yield "leads out of its folder: leave out the '..' between slashes"
        limit, key = {
            Kind.NAME: (self.max_name_length, "max_name_length"),
            Kind.TEXT: (self.max_text_length, "max_text_length"),
            Kind.TAG: (self.max_tag_value_length, "max_tag_value_length"),
        }.get(kind, (0, ""))
        if limit and len(text) > limit:
            yield (
                f"has {len(text)} characters, and {limit} are allowed: shorten it, raise [security] {key} in "
                "mlflow.conf"
            )
        if kind is Kind.LOCATION and (scheme := scheme_of(text)) not in (
            *self.artifact_schemes,
            *_REFERENCES,
        ):
            yield (
                f"has the scheme {scheme!r}, and allowed are {', '.join(self.artifact_schemes)}: use one of "
                "them, add it to [security] allowed_artifact_schemes in mlflow.conf"
            )


def _unseen(text: str, *, may_have_lines: bool) -> Iterator[str]:
    for found in _UNSEEN.finditer(text):
        character = found.group()
        if may_have_lines and (character in _LINE_ENDS or character > "\x9f"):
            continue
        what = "turns the order of what is shown" if character in _REORDERING else "is a control character"
        name = unicodedata.name(character, f"U+{ord(character):04X}")
        yield f"has {name} at position {found.start()}, which {what}: remove it"


def climbs(text: str, *, in_uri: bool) -> bool:
    """Whether ``..`` stands between slashes of some kind, percent-encoded or not."""
    if ".." not in text and "%" not in text:
        return False
    for _ in range(_DECODED_AT_MOST):
        if ".." in re.split(r"[/\\?#&=]" if in_uri else r"[/\\]", text):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True  # nobody encodes a name so often who means well


def scheme_of(location: str) -> str:
    """The scheme of an artifact location; a path has ``file``. One letter is a drive of Windows."""
    found = _SCHEME.match(location.strip())
    return found[1].lower() if found else "file"
