"""MCP servers and skills: indexes for their pages with the newest change first.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

NEWEST = [("workspace", ASCENDING), ("last_update_time", DESCENDING)]
INDEXES = {
    "mcp_servers": IndexModel([*NEWEST, ("name", ASCENDING)], name="by_newest"),
    "skills": IndexModel([*NEWEST, ("organization", ASCENDING), ("name", ASCENDING)], name="by_newest"),
}


class Migration(BaseMigration):
    loses = ""
    compatible = True

    def upgrade(self):
        for name, index in INDEXES.items():
            self.collection(name).create_indexes([index])

    def downgrade(self):
        for name, index in INDEXES.items():
            self.drop_index(name, index.document["name"])
