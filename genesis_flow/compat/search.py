"""Pieces of MLflow's parser of filters and orders."""

import sqlparse
from mlflow.utils.search_utils import SearchUtils, _join_in_comparison_tokens as join_in_comparison_tokens

__all__ = ["join_in_comparison_tokens", "order_key", "trim_backticks"]

# Keys that the parser takes for words of SQL.
_WORDS_OF_SQL = {"organization", "server_name", "version"}


def trim_backticks(key: str) -> str:
    """``key`` without the backticks around it, if it has any."""
    return str(SearchUtils._trim_backticks(key))


def order_key(clause: str) -> tuple[str, bool]:
    """The key of an order, and whether it is ascending. Keys that SQL knows need no backticks."""
    quoted = "".join(
        f"`{text}`" if kind in sqlparse.tokens.Keyword and text.lower() in _WORDS_OF_SQL else text
        for kind, text in sqlparse.lexer.tokenize(clause)
    )
    key, ascending = SearchUtils._parse_order_by_string(quoted)
    return trim_backticks(SearchUtils._strip_quotes(key.strip())), ascending
