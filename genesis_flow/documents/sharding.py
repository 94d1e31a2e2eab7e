"""How a collection is spread over the shards of a cluster, and why by that key."""

from dataclasses import dataclass

# Ids are drawn at random as hexadecimal digits, so equal parts of this are equal parts of the documents.
_DIGITS = 4
_WHOLE = 16**_DIGITS


@dataclass(frozen=True, slots=True)
class ShardKey:
    """One field, in ranges: children have ids that begin with their parent's, so they lie together.

    Hashed, a parent's children would be on all shards; and ids that are drawn at random are spread as evenly
    as hashes are.
    """

    field: str
    because: str
    beginning: str = ""
    """What ids begin with before their random digits, such as ``tr-``."""

    def splits(self, parts: int) -> list[str]:
        """Where ``parts`` equal ranges begin, the first left out."""
        return [f"{self.beginning}{_WHOLE * part // parts:0{_DIGITS}x}" for part in range(1, parts)]
