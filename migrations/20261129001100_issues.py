"""Issues: problems that were found in traces, and an index that counts the traces of each.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

BEHIND = [("created_time", DESCENDING), ("_id", DESCENDING)]
ISSUES = [
    IndexModel([("experiment_id", ASCENDING), ("rank", DESCENDING), *BEHIND], name="by_severity"),
    IndexModel([("rank", DESCENDING), *BEHIND], name="by_severity_anywhere"),
    IndexModel([("source_run", ASCENDING)], name="by_source_run", sparse=True),
]
TRACES_OF_ISSUES = IndexModel(
    [("workspace", ASCENDING), ("kind", ASCENDING), ("name", ASCENDING), ("trace_id", ASCENDING)],
    name="of_issues",
    partialFilterExpression={"kind": "issue"},
)


class Migration(BaseMigration):
    loses = "issues"
    compatible = True

    def upgrade(self):
        self.create_collections({"issues": ISSUES})
        self.collection("assessments").create_indexes([TRACES_OF_ISSUES])

    def downgrade(self):
        self.drop_index("assessments", "of_issues")
        self.collection("issues").drop()
