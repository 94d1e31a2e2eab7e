"""Users with few rights: what works, and what they are told is missing."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from genesis_flow.aio import MongoDBStore
from genesis_flow.migrate import command
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.stores.areas import DECLARED
from tests.migration.helpers import add_step, make_config, real_steps
from tests.mongod import Mongod, guarded_mongod

PASSWORD = "s3cr3t-canary"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    """A server that asks for a password; the user root may do everything."""
    with guarded_mongod("root", PASSWORD) as server:
        yield server


@pytest.fixture
def user(guarded: Mongod) -> Callable[..., str]:
    """The URI of a new user with the given roles on one fresh database."""
    name = f"rights_{uuid.uuid4().hex[:8]}"

    def make(*roles: str) -> str:
        account = f"{'_'.join(roles) or 'nothing'}_user"
        with pymongo.MongoClient[dict[str, Any]](guarded.uri, username="root", password=PASSWORD) as client:
            granted = [{"role": role, "db": name} for role in roles]
            client[name].command("createUser", account, pwd=PASSWORD, roles=granted)
        return f"mongodb://{account}:{PASSWORD}@127.0.0.1:{guarded.port}/{name}?directConnection=true"

    return make


def test_read_write_is_enough_for_the_steps(user: Callable[..., str]) -> None:
    config = make_config(user("readWrite"))
    command.up(config)
    assert command.check(config, DECLARED) == []
    command.down(config, "base", accept_data_loss=True)


def test_a_reader_may_look_and_is_told_what_up_needs(user: Callable[..., str]) -> None:
    reader = make_config(user("read"))
    with pytest.raises(
        MigrationError, match=r"lacks the right to insert.*createIndex.*role readWrite"
    ) as caught:
        command.up(reader)
    assert PASSWORD not in str(caught.value)
    command.up(make_config(user("readWrite")))
    assert command.up(reader).steps == [], "nothing to do needs no right to write"
    assert command.plan(reader) == []
    assert command.check(reader, DECLARED) == []
    assert all(step.state == "applied" for step in command.status(reader).steps)
    with pytest.raises(MigrationError, match="lacks the right"):
        command.down(reader, "base", accept_data_loss=True)


async def test_a_reader_can_use_a_store_at_head(user: Callable[..., str]) -> None:
    writer, reader = user("readWrite"), user("read")
    async with MongoDBStore(writer) as store:
        await store.create_experiment("seen")
    async with MongoDBStore(reader) as store:
        found = await store.get_experiment_by_name("seen")
        assert found is not None


COLL_MOD = """
    {rights}

    def upgrade(self):
        self.create_collection("early")
        self.db.command("collMod", self.prefix + "runs", validator={{}})
"""


@pytest.mark.parametrize("rights", ["", 'rights = ("collMod",)'])
def test_the_missing_right_of_a_step_is_named(user: Callable[..., str], tmp_path: Path, rights: str) -> None:
    """Before the first write where the step declares it, else when the server refuses."""
    location = real_steps(tmp_path / "steps")
    config = make_config(user("readWrite"), location)
    command.up(config)
    add_step(location, "20290101000000", "validator", COLL_MOD.format(rights=rights))
    with pytest.raises(MigrationError, match=r"lacks the right to collMod in .*role dbAdmin"):
        command.up(config)
    state = command.status(config).steps[-1].state
    assert state == ("pending" if rights else "failed")
    allowed = make_config(user("readWrite", "dbAdmin"), location)
    assert [done.name for done in command.up(allowed).steps] == ["validator"]


def test_a_wrong_password_and_a_server_that_is_away_get_a_sentence(user: Callable[..., str]) -> None:
    wrong = user("read").replace(PASSWORD, "wr0ng")
    with pytest.raises(MigrationError, match="refused the user name or password") as caught:
        command.status(make_config(wrong))
    assert "wr0ng" not in str(caught.value)
    away = f"mongodb://u:{PASSWORD}@127.0.0.1:9/db?serverSelectionTimeoutMS=200"
    with pytest.raises(MigrationError, match="Cannot reach") as caught:
        command.up(make_config(away))
    assert PASSWORD not in str(caught.value)
