"""Blocks of metrics in format 2, and settled ones, which clients of before cannot read.

Nothing is changed in what is there: blocks of the first format stay readable for ever, and the command
`genesis-migrate repack` rewrites them when the operator wishes. Reverting writes all in the first format.

Every definition is frozen here: a later change of the documents is a later migration.
"""

import hashlib
import zlib
from itertools import accumulate

from pymongo import DeleteOne, ReplaceOne

from genesis_flow.migrate.base import BaseMigration

SETTLED = {"format": 2, "first_step": {"$exists": True}}
# From the last one on: those that are left are numbered without a gap.
AT_ONCE = 1000


class Migration(BaseMigration):
    loses = ""

    def upgrade(self):
        """Only clients change, by what they write from now on."""

    def downgrade(self):
        blocks = self.collection("metrics")
        for batch in self.batches("metrics", {"format": 2}):
            first = [in_first_format(block) for block in batch]
            blocks.bulk_write([ReplaceOne({"_id": each["_id"]}, each, upsert=True) for each in first])
        while settled := list(blocks.find(SETTLED, {"_id": 1}).sort("_id", -1).limit(AT_ONCE)):
            blocks.bulk_write([DeleteOne({"_id": each["_id"]}) for each in settled])


def in_first_format(block):
    columns = unpacked(block["data"], block["n"])
    digest = hashlib.blake2b(b"".join(columns), digest_size=8).hexdigest()
    head = block["_id"].rpartition("|")[0]
    return {
        "_id": f"{head}|{block['first_timestamp']:016x}-{digest}",
        "n": block["n"],
        "first_timestamp": block["first_timestamp"],
        "last_timestamp": block["last_timestamp"],
        "timestamps": columns[0],
        "steps": columns[1],
        "values": columns[2],
    }


def unpacked(data, count):
    """The three columns, eight bytes a number; areas/metrics/packing.py describes the layout."""
    flags, kinds, position, columns = data[0], int.from_bytes(data[1:7], "little"), 7, []
    for number in range(3):
        first, length = None, count
        if flags >> number & 1:
            first, length = int.from_bytes(data[position : position + 8], "little", signed=True), count - 1
            position += 8
        column = bytearray(8 * length)
        for place in range(8):
            kind = kinds >> 2 * (8 * number + place) & 3
            size = (0, 1, length, 0)[kind]
            if kind == 3:
                size = int.from_bytes(data[position : position + 4], "little")
                position += 4
            plane = data[position : position + size]
            position += size
            if kind == 3:
                plane = zlib.decompress(plane, -15)
            column[place::8] = (b"\0", plane)[kind > 0] * (length if kind < 2 else 1)
        columns.append(bytes(column) if first is None else sums(first, bytes(column)))
    return columns


def sums(first, column):
    differences = (
        int.from_bytes(column[start : start + 8], "little", signed=True) for start in range(0, len(column), 8)
    )
    return b"".join(
        number.to_bytes(8, "little", signed=True) for number in accumulate(differences, initial=first)
    )
