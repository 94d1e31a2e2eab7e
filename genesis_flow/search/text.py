"""Conditions on text that MongoDB checks, or Python where the text does not lie in one document."""

import re
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from genesis_flow.search.compare import condition, like_regex


@dataclass(frozen=True, slots=True)
class TextCondition:
    comparator: str
    value: Any

    def query(self) -> Any:
        """The condition on a field."""
        if self.comparator == "RLIKE":
            check_regex(self.value)
            return {"$regex": self.value}
        return condition(self.comparator, self.value)

    def accepts(self, text: str) -> bool:
        """Whether a text at hand satisfies it; RLIKE is left to the server, see children.py."""
        match self.comparator:
            case "=":
                return bool(text == self.value)
            case "!=":
                return bool(text != self.value)
            case "LIKE" | "ILIKE":
                # Python spells the end of the text in its own way.
                pattern = like_regex(self.value).replace(r"\z", r"\Z")
                flags = re.DOTALL | (re.IGNORECASE if self.comparator == "ILIKE" else 0)
                return re.search(pattern, text, flags) is not None
        raise MlflowException.invalid_parameter_value(f"Invalid comparator '{self.comparator}'.")


def check_regex(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise MlflowException.invalid_parameter_value(
            f"Invalid regular expression {pattern!r} in a filter with RLIKE: {error}."
        ) from error
