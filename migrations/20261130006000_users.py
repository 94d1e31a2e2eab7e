"""Users of MLflow's login, and their roles.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

COLLECTIONS = {
    "auth_users": [
        IndexModel([("username", ASCENDING)], name="username_unique", unique=True),
        IndexModel([("roles.role_id", ASCENDING)], name="by_role"),
    ],
    "auth_roles": [
        IndexModel([("workspace", ASCENDING), ("name", ASCENDING)], name="name_unique", unique=True),
        IndexModel([("owner_id", ASCENDING)], name="by_owner"),
        IndexModel([("permissions.id", ASCENDING)], name="by_permission"),
        IndexModel(
            [("permissions.resource_pattern", ASCENDING), ("permissions.resource_type", ASCENDING)],
            name="by_resource",
        ),
    ],
}


class Migration(BaseMigration):
    loses = "users, roles and permissions"
    compatible = True

    def upgrade(self):
        self.create_collections(COLLECTIONS)

    def downgrade(self):
        for name in COLLECTIONS:
            self.collection(name).drop()
