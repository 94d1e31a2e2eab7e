"""The journal of imports: sources, the units that were read, what was created, what could not be read.

Only _id indexes: whatever belongs to a journal, or to a unit of it, is a range of ids.
"""

from genesis_flow.migrate.base import BaseMigration

COLLECTIONS = (
    "import_journals",
    "import_units",
    "import_items",
    "import_problems",
    "import_artifacts",
)


class Migration(BaseMigration):
    loses = "the journal of imports, without which an import can neither be continued nor rolled back"
    compatible = True

    def upgrade(self):
        for name in COLLECTIONS:
            self.create_collection(name)

    def downgrade(self):
        for name in reversed(COLLECTIONS):
            self.collection(name).drop()
