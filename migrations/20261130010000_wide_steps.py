"""Wide steps: a step of many metrics waits in one document before it becomes part of their heads and blocks.

Nothing changes in what is there. But clients of the schema before would not see the steps that wait, so they
must not work on the database any more. The way back makes all waiting steps part of the heads.

Every definition is frozen here: a later change of the documents is a later migration.
"""

import struct
from itertools import repeat

from pymongo import UpdateOne

from genesis_flow.migrate.base import BaseMigration

PLACE = "\t"
# As many points as one update adds.
PORTION = 1_000


class Migration(BaseMigration):
    loses = ""

    def upgrade(self):
        self.create_collection("latest_metrics")

    def downgrade(self):
        heads = self.collection("latest_metrics")
        for place in heads.find({"key": PLACE}):
            # Points are a set: those of a place that was not removed before are added once.
            updates = [
                UpdateOne({"_id": f"{place['run_uuid']}|{key}"}, change)
                for key, points in points_of(place).items()
                for change in changes(points)
            ]
            if updates:
                heads.bulk_write(updates, ordered=False)
            heads.delete_one({"_id": place["_id"]})
        self.collection("runs").update_many({"places": {"$exists": True}}, {"$unset": {"places": ""}})


def points_of(place):
    """The points of each metric: triples of timestamp, step and value."""
    points = {}
    for row in place["rows"]:
        count = row["n"]
        indexes = struct.unpack(f"<{count}I", row["keys"]) if "keys" in row else range(count)
        times, steps = numbers(row["timestamps"], count), numbers(row["steps"], count)
        values = struct.unpack(f"<{count}d", row["values"])
        for index, time, step, value in zip(indexes, times, steps, values, strict=True):
            points.setdefault(place["keys"][index], []).append([time, step, value])
    return points


def numbers(column, count):
    return struct.unpack(f"<{count}q", column) if isinstance(column, bytes) else repeat(column, count)


def changes(points):
    for start in range(0, len(points), PORTION):
        portion = points[start : start + PORTION]
        time, step, value = max(
            portion, key=lambda point: (point[1], point[0], point[2] == point[2], point[2])
        )
        yield {
            "$max": {"latest": {"step": step, "timestamp": time, "value": value}},
            "$addToSet": {"tail": {"$each": portion}},
        }
