"""Pieces of MLflow's parser of filters."""

from mlflow.utils.search_utils import SearchUtils, _join_in_comparison_tokens as join_in_comparison_tokens

__all__ = ["join_in_comparison_tokens", "trim_backticks"]


def trim_backticks(key: str) -> str:
    """``key`` without the backticks around it, if it has any."""
    return str(SearchUtils._trim_backticks(key))
