"""Users and permissions. They are calls of the tracking store, whose connection a server has already."""

from genesis_flow.areas.users.documents import RoleFields, UserFields
from genesis_flow.areas.users.members import Members
from genesis_flow.areas.users.people import Users
from genesis_flow.areas.users.permissions import Permissions
from genesis_flow.areas.users.roles import Roles
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "users", documents=(UserFields, RoleFields), tracking=(Users, Roles, Members, Permissions)
)
