"""The configuration file, and that docs, example and code name the same settings."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.core import configfile, settings
from genesis_flow.core.settings import Settings

ROOT = Path(__file__).parents[2]
URI = "mongodb://h/mlflow"


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Warnings are given once a process; each test is a process of its own.
    configfile._warn_once.cache_clear()


def write(text: str, path: Path = Path("mlflow.conf")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(text: str) -> str:
    write(text)
    with pytest.raises(MlflowException) as caught:
        Settings.resolve(environ={})
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "canary" not in caught.value.message
    assert caught.value.__context__ is None
    return caught.value.message


class TestPlace:
    def test_precedence(self, tmp_path: Path) -> None:
        named = write("[tracking]\nuri = mongodb://h/named\n", tmp_path / "x" / "named.conf")
        local = write("[tracking]\nuri = mongodb://h/here\n")
        write("[tracking]\nuri = mongodb://h/home\n", tmp_path / "home/.config/genesis_flow/mlflow.conf")
        explicit = write("[tracking]\nuri = mongodb://h/explicit\n", tmp_path / "explicit.conf")
        environ = {"HOME": str(tmp_path / "home"), "GENESIS_FLOW_CONF": str(named)}
        assert Settings.resolve(environ=environ, conf=explicit).database == "explicit"
        assert Settings.resolve(environ=environ).database == "named"
        del environ["GENESIS_FLOW_CONF"]
        assert Settings.resolve(environ=environ).database == "here"
        local.unlink()
        assert Settings.resolve(environ=environ).database == "home"

    def test_named_file_must_exist(self) -> None:
        with pytest.raises(
            MlflowException, match=r"'nowhere\.conf' named by GENESIS_FLOW_CONF does not exist"
        ):
            Settings.resolve(URI, environ={"GENESIS_FLOW_CONF": "nowhere.conf"})
        with pytest.raises(MlflowException, match="given as configuration file"):
            Settings.resolve(URI, environ={}, conf=Path("nowhere.conf"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "uri = mongodb://u:canary@h/d\n",
            "needs a section such as [tracking] before its first key (line 1)",
        ),
        ("[tracking]\nmongodb://u canary@h/d\n", "not 'key = value' (line 2)"),
        ("[tracking]\nuri = a\nuri = canary\n", "key 'uri' twice in [tracking] (line 3)"),
        ("[tracking]\n[tracking]\n", "section [tracking] twice (line 2)"),
        ("[tracking]\nmax_pool_size = many\n", "mlflow.conf [tracking] max_pool_size must be a whole number"),
        ("[tracking]\ntimeout = -1\n", "mlflow.conf [tracking] timeout must be a number of seconds above 0"),
        ("[tracking]\nuri = mongodb://u:canary@h\n", "mlflow.conf [tracking] uri"),
        ("[tracking]\ncollection_prefix = a b\n", "mlflow.conf [tracking] collection_prefix"),
        ("[security]\nenable_input_validation = perhaps\n", "enable_input_validation must be true or false"),
        ("[security]\nmax_param_value_length = 6001\n", "from 1 to 6000"),
        ("[security]\nmax_param_value_length = 0\n", "mlflow.conf [security] max_param_value_length"),
    ],
)
def test_bad_files(text: str, says: str) -> None:
    assert says in refusal(text)


def test_file_that_is_not_text() -> None:
    Path("mlflow.conf").write_bytes(b"[tracking]\nuri = \xff\n")
    with pytest.raises(MlflowException, match="is not UTF-8 text"):
        Settings.resolve(environ={})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[tracking]\nmax_pool_sise = 3\n",
            "'max_pool_sise' in [tracking] is unknown and ignored. Did you mean 'max_pool_size'?",
        ),
        ("[tracking]\npassword = canary\n", "Did you mean 'password_file'?"),
        ("[trakcing]\nuri = canary\n", "[trakcing] is unknown and ignored. Did you mean 'tracking'?"),
        ("[tracking]\ncanary@h = 1\n", "a key that is not a name is ignored"),
        ("[DEFAULT]\nuri = canary\n", "[DEFAULT] is unknown"),
    ],
)
def test_warnings_are_given_once(text: str, says: str, caplog: pytest.LogCaptureFixture) -> None:
    write(text)
    for _ in range(2):
        Settings.resolve(URI, environ={})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert says in caplog.text
    assert "mlflow.conf" in caplog.text
    assert "canary" not in caplog.text


def test_values_with_percent_and_spaces() -> None:
    write("[tracking]\nuri = mongodb://u:p%40w@h/d\ndefault_artifact_root = /a b/100%\n")
    found = Settings.resolve(environ={})
    assert found.password is not None
    assert found.password.reveal() == "p@w"
    assert found.artifact_root == "/a b/100%"


def test_param_length_can_only_be_lowered() -> None:
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    assert settings.MAX_PARAM_VALUE_LENGTH == MAX_PARAM_VAL_LENGTH
    write("[security]\nmax_param_value_length = 500\n")
    assert Settings.resolve(URI, environ={}).max_param_value_length == 500


def test_example_file_is_valid_as_it_is_and_with_its_defaults(caplog: pytest.LogCaptureFixture) -> None:
    text = (ROOT / "examples/mlflow.conf").read_text(encoding="utf-8")
    write(text)
    assert Settings.resolve(environ={}).sources["store_uri"] == "default"
    named = set(re.findall(r"^# (\w+) =", text, re.MULTILINE))
    assert named == {key for keys in configfile.KEYS.values() for key in keys}
    examples = ("uri", "default_artifact_root", "collection_prefix", "username", "password_file")
    write(re.sub(rf"^# (?!(?:{'|'.join(examples)}) =)(\w+ =)", r"\1", text, flags=re.MULTILINE))
    found = Settings.resolve(URI, environ={})
    write("")
    assert found == Settings.resolve(URI, environ={})
    assert caplog.text == ""


def test_docs_state_the_defaults() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    rows = {
        row.split("|")[1].strip(): row.split("|")[5].strip()
        for row in text.splitlines()
        if row.count("|") == 6
    }
    assert rows["connections in the pool"] == str(settings.DEFAULT_POOL_SIZE)
    assert rows["wait for a server (milliseconds)"] == str(settings.DEFAULT_SELECTION_MS)
    assert rows["deadline of a call (seconds)"] == f"{settings.DEFAULT_TIMEOUT:g}"
    assert rows["time to open a store (seconds)"] == f"{settings.DEFAULT_OPEN_TIMEOUT:g}"
    assert rows["longest param value"] == str(settings.MAX_PARAM_VALUE_LENGTH)


class TestAudit:
    def test_it_is_off_unless_the_environment_or_the_file_says_otherwise(self) -> None:
        assert Settings.resolve(URI, environ={}).audit is False
        write("[security]\naudit = yes\n")
        settings = Settings.resolve(URI, environ={})
        assert settings.audit is True
        assert settings.sources["audit"] == "mlflow.conf [security] audit"
        settings = Settings.resolve(URI, environ={"GENESIS_FLOW_AUDIT": "off"})
        assert settings.audit is False
        assert settings.sources["audit"] == "environment GENESIS_FLOW_AUDIT"

    def test_what_is_neither_is_refused(self) -> None:
        with pytest.raises(MlflowException, match="GENESIS_FLOW_AUDIT must be true or false, not 'some'"):
            Settings.resolve(URI, environ={"GENESIS_FLOW_AUDIT": "some"})
