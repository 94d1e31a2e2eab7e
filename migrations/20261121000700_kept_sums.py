"""Sums of traces that readers of metrics keep, and the index that tells which of them are outdated.

Traces that are there have no ``touched``: nobody has changed them since there have been sums.

Every definition is frozen here: a later change of the models is a later migration.
"""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEX = IndexModel(
    [
        ("workspace", ASCENDING),
        ("experiment_id", ASCENDING),
        ("touched", ASCENDING),
        ("request_time", ASCENDING),
    ],
    name="touched",
    partialFilterExpression={"touched": {"$exists": True}},
)


class Migration(BaseMigration):
    loses = ""  # sums are made again
    # Clients of the schema before would change traces without saying so.
    compatible = False

    def upgrade(self):
        self.create_collection("trace_sums")
        self.collection("traces").create_indexes([INDEX])

    def downgrade(self):
        self.drop_index("traces", "touched")
        self.collection("trace_sums").drop()
