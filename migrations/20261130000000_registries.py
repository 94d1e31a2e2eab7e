"""MCP servers and skills.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

COLLECTIONS = {
    "mcp_servers": [
        IndexModel([("workspace", ASCENDING), ("name", ASCENDING)], name="by_name"),
        IndexModel(
            [("workspace", ASCENDING), ("latest.status", ASCENDING), ("name", ASCENDING)], name="by_status"
        ),
        IndexModel(
            [("workspace", ASCENDING), ("last_update_time", ASCENDING), ("name", ASCENDING)], name="by_update"
        ),
        IndexModel([("endpoints.id", ASCENDING)], name="by_endpoint", sparse=True),
    ],
    "mcp_contents": [IndexModel([("server", ASCENDING), ("hints", ASCENDING)], name="by_hint")],
    "skills": [
        IndexModel(
            [("workspace", ASCENDING), ("organization", ASCENDING), ("name", ASCENDING)], name="by_name"
        ),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("latest.status", ASCENDING),
                ("organization", ASCENDING),
                ("name", ASCENDING),
            ],
            name="by_status",
        ),
    ],
}


class Migration(BaseMigration):
    loses = "MCP servers and skills"
    compatible = True

    def upgrade(self):
        self.create_collections(COLLECTIONS)

    def downgrade(self):
        for name in COLLECTIONS:
            self.collection(name).drop()
