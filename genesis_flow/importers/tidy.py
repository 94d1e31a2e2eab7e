"""What an import leaves behind when it brings more points of a metric that it has imported before."""

from genesis_flow.areas.metrics.documents import MetricBlockFields
from genesis_flow.areas.metrics.points import identities, unpack
from genesis_flow.documents.keys import SEPARATOR, children_of, is_open
from genesis_flow.importers.target import ImportTarget, patiently


def drop_superseded_blocks(target: ImportTarget, run_id: str, written: set[str]) -> None:
    """Delete blocks all of whose points are in blocks that were written now.

    A history is a set, so what is in two blocks is there once: this saves space, and changes no history.
    """
    blocks = target.collection(MetricBlockFields)
    ids = patiently(lambda: [each["_id"] for each in blocks.find({"_id": children_of(run_id)}, {"_id": 1})])
    # Settled blocks stay: they are numbered without a gap.
    others = [each for each in ids if each not in written and is_open(each)]
    if not others:
        return
    for block in target.find_by_ids(MetricBlockFields, others):
        of_metric = f"{_metric(block['_id'])}{SEPARATOR}"
        same_time = {
            "_id": {"$in": [each for each in written if each.startswith(of_metric)]},
            "first_timestamp": {"$lte": block["last_timestamp"]},
            "last_timestamp": {"$gte": block["first_timestamp"]},
        }
        points = identities(unpack(block))
        for other in blocks.find(same_time):
            points -= identities(unpack(other))
        if not points:
            target.check()
            patiently(lambda key=block["_id"]: blocks.delete_one({"_id": key}))  # type: ignore[misc]


def _metric(block_id: str) -> str:
    """The run and the key, which both are free of the separator."""
    return block_id.rpartition(SEPARATOR)[0]
