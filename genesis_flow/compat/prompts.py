"""How prompts are kept in the registry."""

from mlflow.prompt.constants import (
    _STORE_PROMPT_SOURCE_PLACEHOLDER as STORE_PROMPT_SOURCE_PLACEHOLDER,
)

__all__ = [
    "STORE_PROMPT_SOURCE_PLACEHOLDER",
]
