"""Numbers of traces, kept in the issues: indexes that sort by them, and one that finds those to be counted.

Issues without a number are counted by whoever asks first. Clients of the schema before would not say that
they change references, so they must not write any more.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

ORDER = [
    ("rank", DESCENDING),
    ("traces", DESCENDING),
    ("created_time", DESCENDING),
    ("_id", DESCENDING),
]
INDEXES = [
    IndexModel([("experiment_id", ASCENDING), *ORDER], name="by_traces"),
    IndexModel(ORDER, name="by_traces_anywhere"),
    IndexModel([("counted", ASCENDING), ("experiment_id", ASCENDING)], name="uncounted"),
]
FIELDS = dict.fromkeys(("traces", "counted", "changes", "changing"), "")


class Migration(BaseMigration):
    loses = ""

    def upgrade(self):
        self.collection("issues").create_indexes(INDEXES)

    def downgrade(self):
        for index in INDEXES:
            self.drop_index("issues", index.document["name"])
        self.collection("issues").update_many({}, {"$unset": FIELDS})
