"""Where each setting comes from, what it becomes for the driver, and what never shows."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from pymongo import AsyncMongoClient

from genesis_flow.core.config_alias import MongoDBConfig
from genesis_flow.core.settings import Embedded, Server, Settings

CANARY = "c4n@ry:/%#?pw"
QUOTED = "c4n%40ry%3A%2F%25%23%3Fpw"
URI = "mongodb://h/mlflow"


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mlflow.conf of the developer's takes part."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def resolve(
    uri: str | None = URI, /, *, conf: str | None = None, root: str | None = None, **environ: str
) -> Settings:
    if conf is not None:
        Path("mlflow.conf").write_text(conf, encoding="utf-8")
    return Settings.resolve(uri, artifact_root=root, environ=environ)


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(MlflowException) as caught:
        resolve(*args, **kwargs)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert CANARY not in caught.value.message
    return caught.value.message


class TestStoreUri:
    EVERYTHING = {
        "MLFLOW_TRACKING_URI": "mongodb://h/from_mlflow",
        "GENESIS_FLOW_MONGODB_URI": "mongodb://h/from_genesis",
        "GENESIS_FLOW_COSMOS_DB_URI": "mongodb://h/from_cosmos",
    }
    CONF = "[tracking]\nuri = mongodb://h/from_conf\n"

    def test_precedence(self) -> None:
        environ = dict(self.EVERYTHING)
        assert resolve("mongodb://h/argument", conf=self.CONF, **environ).database == "argument"
        for name, expected in (
            ("MLFLOW_TRACKING_URI", "from_mlflow"),
            ("GENESIS_FLOW_MONGODB_URI", "from_genesis"),
            ("GENESIS_FLOW_COSMOS_DB_URI", "from_cosmos"),
        ):
            settings = resolve(None, **environ)
            assert settings.database == expected
            assert settings.sources["store_uri"] == f"environment {name}"
            del environ[name]
        assert resolve(None).database == "from_conf"
        assert resolve(None).sources["store_uri"] == "mlflow.conf [tracking] uri"
        Path("mlflow.conf").unlink()
        assert resolve(None).target == Embedded(Path.cwd() / "genesis-data")
        assert resolve(None).sources["store_uri"] == "default"

    @pytest.mark.parametrize("foreign", ["http://server:5000", "sqlite:///x.db", "databricks", ""])
    def test_tracking_uri_of_another_scheme_is_passed_over(self, foreign: str) -> None:
        settings = resolve(None, MLFLOW_TRACKING_URI=foreign, GENESIS_FLOW_MONGODB_URI="mongodb://h/ours")
        assert settings.database == "ours"

    def test_error_names_the_source(self) -> None:
        message = refusal(None, GENESIS_FLOW_MONGODB_URI=f"mongodb://u:{QUOTED}@h")
        assert "environment GENESIS_FLOW_MONGODB_URI" in message
        assert "mongodb://u:***@h" in message


class TestArtifactRoot:
    def test_precedence(self) -> None:
        environ = {
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "s3://server",
            "GENESIS_FLOW_ARTIFACT_ROOT": "s3://environment",
        }
        conf = "[tracking]\ndefault_artifact_root = s3://conf\n"
        assert resolve(conf=conf, root="s3://argument", **environ).artifact_root == "s3://argument"
        assert resolve(**environ).artifact_root == "s3://server"
        del environ["_MLFLOW_SERVER_ARTIFACT_ROOT"]
        assert resolve(**environ).artifact_root == "s3://environment"
        assert resolve().artifact_root == "s3://conf"
        assert resolve().sources["artifact_root"] == "mlflow.conf [tracking] default_artifact_root"

    def test_default_of_a_server(self) -> None:
        assert resolve().artifact_root == str(Path.cwd() / "mlruns")

    def test_default_of_an_embedded_store(self) -> None:
        settings = resolve("genesis:///data/a%20b%23c")
        assert settings.artifact_root == "file:///data/a%20b%23c/artifacts"

    def test_empty_values_count_as_absent(self) -> None:
        assert resolve(root="", GENESIS_FLOW_ARTIFACT_ROOT="").sources["artifact_root"] == "default"


@pytest.mark.parametrize(
    ("field", "option", "variable", "key", "values"),
    [
        ("prefix", "#uri", "MONGODB_COLLECTION_PREFIX", "collection_prefix", ("uri_", "env_", "conf_", "")),
        ("max_pool_size", "?maxPoolSize=1", "MONGODB_MAX_POOL_SIZE", "max_pool_size", (1, 2, 3, 64)),
        (
            "server_selection_timeout",
            "?serverSelectionTimeoutMS=1500",
            "MONGODB_SERVER_SELECTION_TIMEOUT",
            "server_selection_timeout",
            (1.5, 2.5, 3.5, 30.0),
        ),
        ("timeout", "?timeoutMS=1500", "GENESIS_FLOW_TIMEOUT", "timeout", (1.5, 2.5, 3.5, 60.0)),
        ("open_timeout", None, "GENESIS_FLOW_OPEN_TIMEOUT", "open_timeout", (None, 2.5, 3.5, 30.0)),
    ],
)
def test_precedence(field: str, option: str | None, variable: str, key: str, values: tuple[Any, ...]) -> None:
    in_uri, in_environment, in_conf, default = values

    def written(value: Any) -> str:
        return str(round(value * 1000)) if field == "server_selection_timeout" else str(value)

    conf = f"[tracking]\n{key} = {written(in_conf)}\n"
    environ = {variable: written(in_environment)}
    if option is not None:
        settings = resolve(URI + option, conf=conf, **environ)
        assert getattr(settings, field) == in_uri
        assert settings.sources[field].startswith("URI")
    settings = resolve(conf=conf, **environ)
    assert getattr(settings, field) == in_environment
    assert settings.sources[field] == f"environment {variable}"
    settings = resolve()
    assert getattr(settings, field) == in_conf
    assert settings.sources[field] == f"mlflow.conf [tracking] {key}"
    Path("mlflow.conf").unlink()
    assert getattr(resolve(), field) == default
    assert resolve().sources[field] == "default"


def test_a_bare_hash_overrides_the_environment() -> None:
    assert resolve(f"{URI}#", MONGODB_COLLECTION_PREFIX="team").prefix == ""


@pytest.mark.parametrize(
    "variable", ["MONGODB_MAX_POOL_SIZE", "MONGODB_SERVER_SELECTION_TIMEOUT", "GENESIS_FLOW_TIMEOUT"]
)
@pytest.mark.parametrize("value", ["0", "-1", "many", "1e999", "nan", "²"])
def test_bad_numbers(variable: str, value: str) -> None:
    message = refusal(**{variable: value})
    assert message.startswith(variable)
    assert repr(value) in message


def test_bad_number_in_the_uri() -> None:
    assert "option timeoutMS" in refusal("mongodb://h/d?timeoutMS=0")


class TestCredentials:
    def test_from_the_uri_before_the_environment(self) -> None:
        settings = resolve(
            f"mongodb://u:{QUOTED}@h/d",
            GENESIS_FLOW_MONGODB_USERNAME="other",
            GENESIS_FLOW_MONGODB_PASSWORD="other",
        )
        assert settings.username == "u"
        assert settings.password is not None
        assert settings.password.reveal() == CANARY

    def test_password_precedence(self, tmp_path: Path) -> None:
        file = tmp_path / "from_file"
        file.write_text("from-file\n")
        conf_file = tmp_path / "from_conf"
        conf_file.write_bytes(b"from conf\r\n")
        environ = {
            "GENESIS_FLOW_MONGODB_USERNAME": "u",
            "GENESIS_FLOW_MONGODB_PASSWORD": "from-variable",
            "GENESIS_FLOW_MONGODB_PASSWORD_FILE": str(file),
            "GENESIS_FLOW_MONGODB_PASSWORD_COMMAND": f"{sys.executable} -c \"print('from command')\"",
        }
        conf = f"[tracking]\nusername = conf-user\npassword_file = {conf_file}\n"
        for name, expected in (
            ("GENESIS_FLOW_MONGODB_PASSWORD", "from-variable"),
            ("GENESIS_FLOW_MONGODB_PASSWORD_FILE", "from-file"),
            ("GENESIS_FLOW_MONGODB_PASSWORD_COMMAND", "from command"),
        ):
            settings = resolve(conf=conf, **environ)
            assert settings.password is not None
            assert (settings.username, settings.password.reveal()) == ("u", expected)
            assert settings.sources["password"] == f"environment {name}"
            del environ[name]
        settings = resolve(**environ)
        assert settings.password is not None
        assert (settings.username, settings.password.reveal()) == ("u", "from conf")
        assert resolve().username == "conf-user"

    def test_user_in_the_uri_and_password_in_the_environment(self) -> None:
        settings = resolve("mongodb://u@h/d", GENESIS_FLOW_MONGODB_PASSWORD=CANARY)
        assert settings.client_options()[1]["password"] == CANARY
        assert "names 'w'" in refusal(
            "mongodb://u@h/d", GENESIS_FLOW_MONGODB_USERNAME="w", GENESIS_FLOW_MONGODB_PASSWORD=CANARY
        )

    def test_one_without_the_other(self) -> None:
        message = refusal(GENESIS_FLOW_MONGODB_USERNAME="u")
        assert "set GENESIS_FLOW_MONGODB_PASSWORD, " in message
        assert "no password" in refusal("mongodb://u@h/d")
        assert "set GENESIS_FLOW_MONGODB_USERNAME" in refusal(GENESIS_FLOW_MONGODB_PASSWORD=CANARY)

    @pytest.mark.parametrize("mechanism", ["MONGODB-X509", "GSSAPI", "MONGODB-AWS"])
    def test_mechanisms_without_a_password(self, mechanism: str) -> None:
        assert resolve(f"{URI}?authMechanism={mechanism}").username is None
        assert resolve(f"mongodb://u@h/d?authMechanism={mechanism}").password is None

    def test_file_that_cannot_be_read(self) -> None:
        message = refusal(GENESIS_FLOW_MONGODB_USERNAME="u", GENESIS_FLOW_MONGODB_PASSWORD_FILE="/nowhere/pw")
        assert "'/nowhere/pw' named by GENESIS_FLOW_MONGODB_PASSWORD_FILE" in message
        assert "No such file" in message

    @pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
    def test_file_without_a_password(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "pw"
        file.write_bytes(content)
        message = refusal(GENESIS_FLOW_MONGODB_USERNAME="u", GENESIS_FLOW_MONGODB_PASSWORD_FILE=str(file))
        assert str(file) in message

    @pytest.mark.parametrize(
        ("command", "says"),
        [
            (f"{sys.executable} -c 'print(1); raise SystemExit(3)' {CANARY}", "exit status 3"),
            (f"/nowhere/program {CANARY}", "could not be started"),
            (f"echo '{CANARY}", "check its quotes"),
            (f"{sys.executable} -c pass {CANARY}", "no password"),
        ],
    )
    def test_command_that_fails(self, command: str, says: str) -> None:
        with pytest.raises(MlflowException, match=says) as caught:
            resolve(GENESIS_FLOW_MONGODB_USERNAME="u", GENESIS_FLOW_MONGODB_PASSWORD_COMMAND=command)
        assert CANARY not in caught.value.message
        assert caught.value.__context__ is None

    def test_command_that_does_not_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("genesis_flow.core.credentials.COMMAND_SECONDS", 0.2)
        command = f"{sys.executable} -c 'import time; time.sleep(60)'"
        message = refusal(GENESIS_FLOW_MONGODB_USERNAME="u", GENESIS_FLOW_MONGODB_PASSWORD_COMMAND=command)
        assert "within 0.2 seconds" in message

    def test_command_runs_without_a_shell(self) -> None:
        settings = resolve(
            GENESIS_FLOW_MONGODB_USERNAME="u", GENESIS_FLOW_MONGODB_PASSWORD_COMMAND="echo a; echo $HOME"
        )
        assert settings.password is not None
        assert settings.password.reveal() == "a; echo $HOME"

    def test_embedded_stores_get_none(self) -> None:
        settings = resolve(
            "genesis://", GENESIS_FLOW_MONGODB_USERNAME="u", GENESIS_FLOW_MONGODB_PASSWORD=CANARY
        )
        assert settings.username is None
        assert "password" not in settings.client_options("mongodb://x")[1]


class TestDurability:
    @pytest.mark.parametrize(
        ("options", "concern", "journal"),
        [
            ("", "majority", None),
            ("?w=majority", "majority", None),
            ("?w=1", 1, True),
            ("?w=2", 2, True),
            ("?w=datacenters", "datacenters", True),
            ("?w=1&journal=false", 1, False),
            ("?journal=true", "majority", True),
        ],
    )
    def test_write_concern(self, options: str, concern: str | int, journal: bool | None) -> None:
        settings = resolve(URI + options)
        assert (settings.write_concern, settings.journal) == (concern, journal)

    def test_unacknowledged_writes_are_refused(self) -> None:
        assert "w=0" in refusal(f"{URI}?w=0")

    def test_cosmos_defaults(self) -> None:
        uri = "mongodb://a.mongo.cosmos.azure.com:10255/d?ssl=true&replicaSet=globaldb"
        settings = resolve(uri)
        assert (settings.max_idle_time_ms, settings.retry_writes) == (120_000, False)
        settings = resolve(f"{uri}&retrywrites=true&maxIdleTimeMS=5000")
        assert (settings.max_idle_time_ms, settings.retry_writes) == (5000, True)
        settings = resolve(URI)
        assert (settings.max_idle_time_ms, settings.retry_writes) == (None, None)


class TestClientOptions:
    async def test_the_driver_takes_them(self) -> None:
        settings = resolve(
            f"mongodb://us%40er:{QUOTED}@h1:1,h2:2/d?authSource=admin&ssl=true&replicaSet=rs&retryWrites=false"
            "&maxIdleTimeMS=120000&maxPoolSize=7&readPreference=nearest&readPreferenceTags=dc:ny,rack:1"
            "&readPreferenceTags=&timeoutMS=4000&w=1"
        )
        uri, options = settings.client_options()
        assert CANARY not in uri
        assert QUOTED not in uri
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, connect=False, **options)
        try:
            given = client.options
            assert given.pool_options.max_pool_size == 7
            assert given.pool_options.max_idle_time_seconds == 120
            assert given.retry_writes is False
            assert given.replica_set_name == "rs"
            assert given.server_selection_timeout == 30
            assert given.timeout is None
            assert client.write_concern.document == {"w": 1, "j": True}
            assert client.read_preference.tag_sets == [{"dc": "ny", "rack": "1"}, {}]
            credentials = given.pool_options._credentials
            assert credentials is not None
            assert (credentials.username, credentials.password, credentials.source) == (
                "us@er",
                CANARY,
                "admin",
            )
        finally:
            await client.close()

    async def test_the_database_of_the_uri_still_holds_the_user(self) -> None:
        uri, options = resolve("mongodb://u:p@h/users").client_options()
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, connect=False, **options)
        credentials = client.options.pool_options._credentials
        await client.close()
        assert credentials is not None
        assert credentials.source == "users"

    def test_embedded(self) -> None:
        settings = resolve("genesis:///data#team", MONGODB_MAX_POOL_SIZE="5")
        assert (settings.target, settings.database, settings.prefix) == (
            Embedded(Path("/data")),
            "mlflow",
            "team_",
        )
        uri, options = settings.client_options("mongodb://%2Fx.sock/?directConnection=true")
        assert uri == "mongodb://%2Fx.sock/?directConnection=true"
        assert options["maxPoolSize"] == 5
        with pytest.raises(ValueError, match="running server"):
            settings.client_options()


class TestCacheKey:
    def test_shared_between_databases_and_prefixes(self) -> None:
        keys = {
            resolve(uri).cache_key
            for uri in (
                "mongodb://u:p@h/a?authSource=admin",
                "mongodb://u:p@h/b?authSource=admin#team",
            )
        }
        assert len(keys) == 1
        assert resolve("mongodb://h/a").cache_key == resolve("mongodb://h/b").cache_key
        assert resolve("genesis:///a").cache_key == resolve("genesis:///a#team").cache_key

    def test_differs_with_what_makes_a_client(self) -> None:
        uris = (
            "mongodb://h/a",
            "mongodb://h2/a",
            "mongodb://u:p@h/a",
            "mongodb://u:p@h/b",
            "mongodb://u:q@h/a",
            "mongodb://h/a?w=1",
            "mongodb://h/a?maxPoolSize=2",
            "mongodb://h/a?replicaSet=rs",
            "genesis:///a",
            "genesis:///b",
        )
        assert len({resolve(uri).cache_key for uri in uris}) == len(uris)

    def test_holds_no_password(self) -> None:
        assert CANARY not in resolve(f"mongodb://u:{QUOTED}@h/d").cache_key


def test_nothing_shows_the_password() -> None:
    settings = resolve(f"mongodb://u:{QUOTED}@h/d?tlsCertificateKeyFilePassword={QUOTED}")
    shown = [repr(settings), str(settings), str(dataclasses.asdict(settings)), str(settings.sources)]
    shown += [settings.store_uri, repr(settings.credential_environment()), repr(pickle.dumps(settings))]
    for text in shown:
        assert CANARY not in text
        assert QUOTED not in text
    assert settings.store_uri == "mongodb://u:***@h/d?tlsCertificateKeyFilePassword=***"


def test_copies_are_equal_and_work() -> None:
    settings = resolve(f"mongodb://u:{QUOTED}@h/d")
    for other in (
        copy.deepcopy(settings),
        pickle.loads(pickle.dumps(settings)),
        dataclasses.replace(settings),
    ):
        assert other == settings
        assert hash(other) == hash(settings)
        assert other.client_options() == settings.client_options()


def test_another_process_resolves_the_same_without_credentials_in_the_uri() -> None:
    settings = resolve(
        f"mongodb://us%40er:{QUOTED}@h1,h2/my-db?authSource=admin&w=1#team", MONGODB_MAX_POOL_SIZE="5"
    )
    uri = settings.credential_free_uri.reveal()
    assert uri == "mongodb://h1,h2/my-db?authSource=admin&w=1#team_"
    variables = {name: secret.reveal() for name, secret in settings.credential_environment().items()}
    child = resolve(uri, MONGODB_MAX_POOL_SIZE="5", **variables)
    assert child.client_options() == settings.client_options()
    assert (child.database, child.prefix) == (settings.database, settings.prefix)


def test_credential_free_uri_of_an_embedded_store() -> None:
    settings = resolve("genesis:///data/a%20b%23c", MONGODB_COLLECTION_PREFIX="team")
    assert settings.credential_environment() == {}
    child = resolve(settings.credential_free_uri.reveal())
    assert (child.target, child.prefix) == (settings.target, "team_")


def test_server_target() -> None:
    target = resolve("mongodb://h1:1,h2/d").target
    assert isinstance(target, Server)
    assert (target.hosts, target.is_cosmos) == ("h1:1,h2", False)


def test_import_is_light() -> None:
    code = (
        "import sys, genesis_flow.core.settings;"
        "print([name for name in ('mlflow', 'pymongo', 'beanie') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


class TestOlderName:
    def test_connection_config(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("GENESIS_FLOW_MONGODB_URI", f"mongodb://u:{QUOTED}@h/d#team")
        config = MongoDBConfig.get_connection_config()
        assert config == {
            "uri": "mongodb://u:***@h/d#team",
            "database_name": "d",
            "collection_prefix": "team_",
            "artifact_root": str(Path.cwd() / "mlruns"),
            "max_pool_size": 64,
            "server_selection_timeout_ms": 30_000,
        }
        assert MongoDBConfig.validate_configuration() is True

    def test_invalid_configuration_is_logged(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("GENESIS_FLOW_MONGODB_URI", f"mongodb://u:{QUOTED}@h")
        assert MongoDBConfig.validate_configuration() is False
        assert "names no database" in caplog.text
        assert caplog.records[-1].levelname == "ERROR"
        assert QUOTED not in caplog.text
