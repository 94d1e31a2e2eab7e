"""An index that answers the usual metrics of traces by itself.

Counts, latencies and states of traces by name and by time read index entries instead of whole traces.

Every definition is frozen here: a later change of the models is a later migration.
"""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEX = IndexModel(
    [
        ("workspace", ASCENDING),
        ("experiment_id", ASCENDING),
        ("request_time", ASCENDING),
        ("end_time", ASCENDING),
        ("status", ASCENDING),
        ("name", ASCENDING),
    ],
    name="metrics",
)


class Migration(BaseMigration):
    loses = ""
    compatible = True

    def upgrade(self):
        self.collection("traces").create_indexes([INDEX])

    def downgrade(self):
        self.drop_index("traces", "metrics")
