"""A document of the target, taken apart: what nobody asks for is a field that the source does not have."""

from collections.abc import Mapping
from typing import Any

from genesis_flow.documents.plain import Document
from genesis_flow.importers.verify.entities import Fields, canonical, canonical_json, counted

MISSING = "is missing in the document"


class Stored:
    """Fields are taken one after another; ``rest`` is what was not taken.

    Nothing is assumed of what a document holds: any value may be anything that MongoDB keeps.
    """

    def __init__(self, document: Document) -> None:
        self._left = {name: value for name, value in document.items() if value is not None}

    def take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def put(self, name: str, value: Any) -> None:
        """Take something else for what the document says."""
        if value is not None:
            self._left[name] = value

    def settle(self, **expected: Any) -> None:
        """Take fields whose values are known; one with another value, or none, will be among the rest."""
        for name, value in expected.items():
            stored = self._left.pop(name, MISSING)
            if canonical(stored) != canonical(value):
                self._left[name] = stored

    def fields(self, *names: str, **renamed: str) -> Fields:
        """Values as they are; ``renamed`` are those that the source calls otherwise."""
        return {name: self.take(name) for name in names} | {
            theirs: self.take(ours) for theirs, ours in renamed.items()
        }

    def mapped(self, name: str, *, optional: bool = False) -> Fields:
        """The entries of a map under the keys that users gave."""
        value = self.take(name)
        if isinstance(value, dict):
            return entries(name, value)
        return {} if value is None and optional else {name: MISSING if value is None else value}

    def counted(self, name: str, *, optional: bool = True) -> Fields:
        """The items of a list."""
        value = self.take(name)
        if isinstance(value, list):
            return counted(name, value)
        return {} if value is None and optional else {name: MISSING if value is None else value}

    def json(self, *names: str) -> Fields:
        """JSON texts."""
        return {name: json_text(self.take(name)) for name in names}

    def rest(self) -> Fields:
        return dict(self._left)


def json_text(value: Any) -> Any:
    return canonical_json(value) if isinstance(value, str) else value


def entries(name: str, stored: Mapping[str, Any]) -> Fields:
    fields: Fields = {}
    for key, value in stored.items():
        field = f"{name}.{_key(key)}"
        fields[f"{field} (twice)" if field in fields else field] = value
    return fields


def unescaped(value: Any) -> Any:
    """A map under the keys that users gave; what is no map is told as it is."""
    if not isinstance(value, dict):
        return value
    return {name.partition(".")[2]: each for name, each in entries("", value).items()}


def _key(stored: str) -> str:
    """The key that a user gave: dots, dollars and percents are written as in URLs, "%" is the empty one."""
    if stored == "%":
        return ""
    key = stored.replace("%24", "$").replace("%2E", ".").replace("%25", "%")
    written = key.replace("%", "%25").replace(".", "%2E").replace("$", "%24")
    return key if written == stored else f"{stored} (which no store writes)"
