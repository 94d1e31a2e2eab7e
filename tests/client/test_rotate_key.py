"""``genesis-flow gateway rotate-key``: another passphrase, while calls run, killed and run again."""

from collections.abc import Iterator
from contextlib import closing
from unittest import mock

import pytest
from click.testing import CliRunner, Result
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore
from genesis_flow.cli.main import cli
from genesis_flow.compat import crypto
from tests.doctor.helpers import examine
from tests.mongod import Mongod, unique

OLD, NEW = "old-canary-passphrase", "new-canary-passphrase"
BOTH = {"MLFLOW_CRYPTO_KEK_PASSPHRASE": OLD, "GENESIS_FLOW_NEXT_KEK_PASSPHRASE": NEW}
AFTER = {"MLFLOW_CRYPTO_KEK_PASSPHRASE": NEW, "MLFLOW_CRYPTO_KEK_VERSION": "2"}
SECRETS = 5


@pytest.fixture
def uri(mongod: Mongod) -> str:
    return mongod.database_uri(unique("rotate"))


@pytest.fixture
def secrets(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", OLD)
    with closing(MongoDBStore(uri)) as store:
        yield [
            store.create_gateway_secret(f"k{number}", {"api_key": f"sk-{number}"}).secret_id
            for number in range(SECRETS)
        ]


def rotate(uri: str, **environment: str) -> Result:
    done = CliRunner().invoke(cli, ["gateway", "rotate-key", "--uri", uri, "--yes"], env=environment)
    assert OLD not in done.output
    assert NEW not in done.output
    return done


def values(uri: str, secrets: list[str]) -> list[str]:
    with closing(MongoDBStore(uri)) as store:
        return [store._get_decrypted_secret(each)["api_key"] for each in secrets]


EXPECTED = [f"sk-{number}" for number in range(SECRETS)]


def test_secrets_are_read_before_and_after(
    uri: str, secrets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in BOTH.items():
        monkeypatch.setenv(name, value)
    done = rotate(uri, **BOTH)
    assert done.exit_code == 0, done.output
    assert f"{SECRETS} secrets are encrypted with version 2 now" in done.output
    assert values(uri, secrets) == EXPECTED, "a server that has both variables"
    monkeypatch.delenv("GENESIS_FLOW_NEXT_KEK_PASSPHRASE")
    with pytest.raises(MlflowException, match="encrypted with version 2"):
        values(uri, secrets)
    for name, value in AFTER.items():
        monkeypatch.setenv(name, value)
    assert values(uri, secrets) == EXPECTED, "a server that has the new one"


def test_it_goes_on_where_it_was_killed(
    uri: str, secrets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in BOTH.items():
        monkeypatch.setenv(name, value)
    real, seen = crypto.rewrapped, 0

    def dying(*arguments: object) -> bytes:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    with mock.patch.object(crypto, "rewrapped", dying):
        assert rotate(uri, **BOTH).exit_code != 0
    assert values(uri, secrets) == EXPECTED, "half of them have the new key"
    done = rotate(uri, **BOTH)
    assert f"{SECRETS - 2} secrets are" in done.output
    assert "0 secrets are" in rotate(uri, **BOTH).output
    assert values(uri, secrets) == EXPECTED


def test_a_wrong_passphrase_changes_nothing(uri: str, secrets: list[str]) -> None:
    assert rotate(uri, **{**BOTH, "MLFLOW_CRYPTO_KEK_PASSPHRASE": "wrong"}).exit_code == 1
    refused = rotate(uri, MLFLOW_CRYPTO_KEK_PASSPHRASE=OLD, GENESIS_FLOW_NEXT_KEK_PASSPHRASE="")
    assert refused.exit_code == 1
    assert "GENESIS_FLOW_NEXT_KEK_PASSPHRASE" in refused.output
    assert values(uri, secrets) == EXPECTED


def test_the_doctor_tells_of_the_passphrase(uri: str, secrets: list[str]) -> None:
    assert examine(uri=uri, MLFLOW_CRYPTO_KEK_PASSPHRASE=OLD).verdict("secrets") == "ok"
    known = examine(uri=uri, MLFLOW_CRYPTO_KEK_PASSPHRASE="")
    assert known.verdict("secrets") == "warn"
    assert "everybody knows" in known.told("secrets")
    other = examine(uri=uri, **AFTER)
    assert other.verdict("secrets") == "warn"
    assert "another version" in other.told("secrets")
