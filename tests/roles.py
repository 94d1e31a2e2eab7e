"""The roles of docs/security.md, made as they are written there, and a mongod for servers that have one."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pymongo
from pymongo.database import Database

from genesis_flow.migrate import command
from tests.migration.helpers import make_config
from tests.mongod import Mongod, guarded_mongod

PAGE = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
ROLES = {
    found["name"]: found["body"]
    for found in re.finditer(
        r"db\.createRole\((?P<body>\{\s*\"role\": \"(?P<name>\w+)\".*?\n\})\)", PAGE, re.DOTALL
    )
}


def make_user(database: Database[dict[str, Any]], name: str, password: str, *roles: str) -> None:
    """A user who has these roles, and no other right."""
    for role in roles:
        _make_role(database, role)
    database.command("createUser", name, pwd=password, roles=list(roles))


def _make_role(database: Database[dict[str, Any]], role: str) -> None:
    """The role, and first those that it builds upon."""
    written = json.loads(ROLES[role].replace('"mlflow"', json.dumps(database.name)))
    for other in written["roles"]:
        _make_role(database, other)
    database.command("createRole", written.pop("role"), **written)


class RestrictedMongod:
    """A mongod whose users have roles of the page; who asks for a database gets the URI of one."""

    ROOT, OPERATOR, SERVER = "root", "operator", "server"
    PASSWORD = "c4nary-P@ss/w:rd"

    def __init__(self, mongod: Mongod) -> None:
        self._port = mongod.port

    @property
    def uri(self) -> str:
        """That of who may do everything."""
        return self._uri("", self.ROOT, authSource="admin")

    def database_uri(self, name: str) -> str:
        """A database whose operator has made the schema, for a user who has the role of servers alone."""
        with pymongo.MongoClient[dict[str, Any]](self.uri) as client:
            make_user(client[name], self.OPERATOR, self.PASSWORD, "mlflowOperator")
            make_user(client[name], self.SERVER, self.PASSWORD, "mlflowServer")
        command.up(make_config(self._uri(name, self.OPERATOR)))
        return self._uri(name, self.SERVER)

    def empty_database_uri(self, name: str) -> str:
        """A database without a schema, for a server that has to make it: its user is an operator, too."""
        with pymongo.MongoClient[dict[str, Any]](self.uri) as client:
            make_user(client[name], self.SERVER, self.PASSWORD, "mlflowOperator", "mlflowServer")
        return self._uri(name, self.SERVER)

    def is_operator_no_more(self, name: str) -> None:
        """From now on the user of that server has the role of servers alone."""
        with pymongo.MongoClient[dict[str, Any]](self.uri) as client:
            client[name].command("revokeRolesFromUser", self.SERVER, roles=["mlflowOperator"])

    def root_uri(self, name: str) -> str:
        return self._uri(name, self.ROOT, authSource="admin")

    def _uri(self, name: str, user: str, **options: str) -> str:
        asked = urlencode({"directConnection": "true", **options})
        return f"mongodb://{user}:{quote(self.PASSWORD, safe='')}@127.0.0.1:{self._port}/{name}?{asked}"


@contextmanager
def restricted_mongod() -> Iterator[RestrictedMongod]:
    with guarded_mongod(RestrictedMongod.ROOT, RestrictedMongod.PASSWORD) as running:
        yield RestrictedMongod(running)
