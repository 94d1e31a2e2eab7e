"""Workspaces: what is kept of each.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from genesis_flow.migrate.base import BaseMigration

COLLECTIONS = {"workspaces": []}


class Migration(BaseMigration):
    loses = "the settings of workspaces, but not what is in them"
    compatible = True

    def upgrade(self):
        self.create_collections(COLLECTIONS)

    def downgrade(self):
        for name in COLLECTIONS:
            self.collection(name).drop()
