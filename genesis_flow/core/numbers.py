"""Whole numbers as MongoDB holds them."""

# Ask it about plain integers only: for anything else, ``in`` would try one number after the other.
INT64 = range(-(2**63), 2**63)


def storable(number: float) -> float:
    """A number that compares with any 64-bit integer as ``number`` does, and that BSON can hold."""
    if isinstance(number, float) or number in INT64:
        return number
    return float("inf") if number > 0 else float("-inf")
