"""``genesis-flow config``: what it shows is what stores use, and it names all that is wrong at once."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import genesis_flow
from genesis_flow.cli.main import cli
from genesis_flow.core import options
from genesis_flow.core.options import BY_NAME, OPTIONS
from genesis_flow.core.settings import Settings
from genesis_flow.core.survey import survey

CANARY = "c4nary"
URI = "mongodb://h/mlflow"

# What the table calls otherwise than Settings does, and in which unit.
OTHERWISE = {
    "uri": "store_uri",
    "default_artifact_root": "artifact_root",
    "collection_prefix": "prefix",
    "password_file": "password",
    "profile": "portable",
}
LIMITS = {
    "max_name_length": "max_name_length",
    "max_tag_value_length": "max_tag_value_length",
    "max_text_length": "max_text_length",
    "allowed_artifact_schemes": "artifact_schemes",
}


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = {variable for option in OPTIONS for variable in option.variables}
    for variable in list(os.environ):
        # Those that CI sets for tests are unknown to the command.
        if variable in known or variable.startswith(("GENESIS_", "MLFLOW_", "_MLFLOW_", "MONGODB_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def run(*words: str, code: int, conf: str = "", **environ: str) -> Any:
    if conf:
        Path("mlflow.conf").write_text(conf, encoding="utf-8")
    done = CliRunner(env=environ).invoke(cli, ["config", *words])
    assert CANARY not in done.output
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if "--json" in words else done


def as_stores_have_it(name: str, settings: Settings) -> Any:
    if name in LIMITS:
        return getattr(settings.strict_input, LIMITS[name])
    found = getattr(settings, OTHERWISE.get(name, name))
    if name == "profile":
        return "portable" if found else "full"
    return round(found * 1000) if name == "server_selection_timeout" else found


@pytest.mark.parametrize(
    ("uri", "environ"),
    [
        (URI, {}),
        ("mongodb://u:p@a.mongo.cosmos.azure.com:10255/d?ssl=true#team", {}),
        (None, {"GENESIS_FLOW_MONGODB_URI": f"{URI}?w=2&maxPoolSize=3&timeoutMS=1500&journal=false"}),
        (
            None,
            {
                "MLFLOW_TRACKING_URI": URI,
                "GENESIS_FLOW_MONGODB_USERNAME": "u",
                "GENESIS_FLOW_MONGODB_PASSWORD": "p",
                "GENESIS_FLOW_ARTIFACT_ROOT": "s3://b",
                "MONGODB_COLLECTION_PREFIX": "team",
                "MONGODB_MAX_POOL_SIZE": "2",
                "MONGODB_SERVER_SELECTION_TIMEOUT": "2500",
                "GENESIS_FLOW_TIMEOUT": "2.5",
                "GENESIS_FLOW_OPEN_TIMEOUT": "3",
                "GENESIS_FLOW_PROFILE": "portable",
                "GENESIS_FLOW_AUDIT": "yes",
            },
        ),
    ],
    ids=["defaults", "cosmos", "uri", "environment"],
)
def test_it_shows_what_stores_use(uri: str | None, environ: dict[str, str]) -> None:
    environ = {"MLFLOW_STRICT_INPUT_VALIDATION": "true", **environ}
    settings, found = Settings.resolve(uri, environ=environ), survey(uri, environ)
    assert found.problems == []
    held = {*OTHERWISE, *LIMITS, *(field.name for field in dataclasses.fields(Settings))}
    compared = 0
    for option, reading in found.readings:
        if option.name in held:
            assert reading.value == as_stores_have_it(option.name, settings), option.name
            source = settings.sources.get(OTHERWISE.get(option.name, option.name), "default")
            assert reading.source == source, option.name
            compared += 1
    assert compared == 20


def test_every_setting_that_stores_have_is_shown() -> None:
    shown = {OTHERWISE.get(option.name, option.name) for option in OPTIONS} | {
        # In the URI, or made of others.
        *("target", "database", "watching", "app_name", "credential_free_uri", "sources", "strict_input"),
    }
    assert {field.name for field in dataclasses.fields(Settings)} <= shown


_VARIABLE = re.compile(r'"((?:GENESIS_FLOW|GENESIS_MIGRATE|MONGODB)_[A-Z_]+)"')


def test_every_variable_of_the_code_is_shown() -> None:
    """One that is not would be called misspelled, too."""
    files = Path(genesis_flow.__file__).parent.rglob("*.py")
    read = {name for path in files for name in _VARIABLE.findall(path.read_text(encoding="utf-8"))}
    assert len(read) > 10
    assert read <= {variable for option in OPTIONS for variable in option.variables}
    assert survey(URI, dict.fromkeys(read - {"GENESIS_FLOW_CONF"}, "")).problems == []


def test_an_embedded_store_has_no_settings_of_a_server() -> None:
    report = run("--json", code=0, GENESIS_FLOW_MONGODB_USERNAME="u", GENESIS_FLOW_MONGODB_PASSWORD=CANARY)
    told = {each["name"]: each for each in report["settings"]}
    assert told["uri"]["value"] == "genesis://"
    assert (told["username"]["value"], told["username"]["source"]) == (None, "not for genesis://")
    assert told["default_artifact_root"]["value"] == (Path.cwd() / "genesis-data/artifacts").as_uri()


def test_every_setting_has_a_row_and_secrets_show_as_stars(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(CANARY)
    secrets = {
        variable: CANARY for option in OPTIONS if option.kind == "secret" for variable in option.variables
    }
    del secrets["GENESIS_FLOW_MONGODB_PASSWORD"]
    environ = {**secrets, "GENESIS_FLOW_MONGODB_PASSWORD_FILE": str(file)}
    conf = f"[tracking]\nuri = mongodb://h/d?tlsCertificateKeyFilePassword={CANARY}\nusername = ann\n"
    done = run(code=0, conf=conf, **environ)
    for option in OPTIONS:
        assert f"  {option.name} " in done.stdout
    assert "password_file" in done.stdout
    report = run("--json", code=0, **environ)
    told = {each["name"]: each["value"] for each in report["settings"]}
    assert told["uri"] == "mongodb://h/d?tlsCertificateKeyFilePassword=***"
    assert told["username"] == "ann"
    assert {told[option.name] for option in OPTIONS if option.kind == "secret"} == {"***"}
    assert report["file"] == str(Path.cwd() / "mlflow.conf")


def test_the_command_that_prints_the_password_is_not_run(tmp_path: Path) -> None:
    report = run(
        "--json",
        "--uri",
        URI,
        code=0,
        GENESIS_FLOW_MONGODB_USERNAME="ann",
        GENESIS_FLOW_MONGODB_PASSWORD_COMMAND=f"touch {tmp_path}/was-run",
    )
    told = {each["name"]: each for each in report["settings"]}
    assert told["password_file"]["value"] == "***"
    assert told["password_file"]["source"] == "environment GENESIS_FLOW_MONGODB_PASSWORD_COMMAND"
    assert not (tmp_path / "was-run").exists()


def test_all_that_is_wrong_is_named_at_once() -> None:
    conf = (
        f"[tracking]\nuri = mongodb://ann:{CANARY}@h\nmax_pool_sise = 3\ntimeout = -1\nprofile = half\n"
        "max_pool_size = many\npassword_file = /nowhere\n[securty]\naudit = yes\n"
        "[security]\naudit = perhaps\n[plugins]\nplugin_path = /a\n"
    )
    environ = {
        "GENESIS_FLOW_TIMEUOT": "3",
        "MLFLOW_STRICT_INPUT_VALIDATE": "true",
        "MONGODB_POOL": "of somebody else",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    }
    report = run("--json", code=1, conf=conf, **environ)
    said = "\n".join(report["problems"])
    for words in (
        "The store URI 'mongodb://ann:***@h' (mlflow.conf [tracking] uri) names no database",
        "'max_pool_sise' in [tracking] is unknown and ignored. Did you mean 'max_pool_size'?",
        "mlflow.conf [tracking] max_pool_size must be a whole number above 0, not 'many'",
        "mlflow.conf [tracking] timeout must be a number of seconds above 0, not '-1'",
        "mlflow.conf [tracking] profile must be one of full, portable, not 'half'",
        "'/nowhere' named by mlflow.conf [tracking] password_file cannot be read",
        "the section [securty] is unknown and ignored. Did you mean 'security'?",
        "mlflow.conf [security] audit must be true or false, not 'perhaps'",
        "'plugin_path' in [plugins] is unknown and ignored. Did you mean 'plugin_paths'?",
        "GENESIS_FLOW_TIMEUOT is unknown and ignored. Did you mean 'GENESIS_FLOW_TIMEOUT'?",
        "MLFLOW_STRICT_INPUT_VALIDATE is unknown and ignored. Did you mean 'MLFLOW_STRICT_INPUT_VALIDATION'?",
    ):
        assert words in said
    assert len(report["problems"]) == 11
    assert report["valid"] is False
    told = {each["name"]: each for each in report["settings"]}
    assert (told["timeout"]["value"], told["timeout"]["source"]) == (None, "not valid")
    assert told["open_timeout"]["value"] == 30.0
    assert set(told) == set(BY_NAME)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("GENESIS_FLOW_PLUGIN_TIMEOUT", "-1", "must be a number of seconds from 0 on, not '-1'"),
        ("GENESIS_FLOW_PLUGIN_TIMEOUT", "long", "must be a number of seconds from 0 on, not 'long'"),
        ("GENESIS_FLOW_MODEL_PICKLES", "eat", "must be one of refuse, scan, not 'eat'"),
        ("MLFLOW_ENABLE_SECURE_MODEL_LOADING", "so-so", "must be true or false, not 'so-so'"),
    ],
)
def test_settings_of_others_are_checked_too(name: str, text: str, says: str) -> None:
    assert survey(URI, {name: text}).problems == [f"{name} {says}."]
    assert survey(URI, {name: "1" if "PICKLES" not in name else "Scan"}).problems == []


def test_problems_go_to_people_on_standard_error() -> None:
    done = run(code=1, GENESIS_FLOW_TIMEUOT="3")
    assert done.stderr.startswith("Problem: The environment variable GENESIS_FLOW_TIMEUOT is unknown")
    assert "Problem" not in done.stdout


@pytest.mark.parametrize(
    ("conf", "says"),
    [("uri = x\n", "needs a section such as [tracking]"), ("[tracking]\nuri\n", "not 'key = value'")],
)
def test_a_file_that_cannot_be_read_does_not_hide_the_environment(conf: str, says: str) -> None:
    report = run("--json", code=1, conf=conf, GENESIS_FLOW_TIMEOUT="7")
    assert says in report["problems"][0]
    told = {each["name"]: each for each in report["settings"]}
    assert told["timeout"]["value"] == 7.0


class TestOptionsByName:
    """How those read their settings that need no store."""

    def test_precedence_and_types(self) -> None:
        assert options.value("enable_secure_model_loading", {}) is False
        assert options.value("plugin_paths", {}) == ()
        Path("mlflow.conf").write_text(
            "[security]\nenable_secure_model_loading = yes\n"
            "[plugins]\nauto_discover = no\nenable_builtin = 0\n"
        )
        assert options.value("enable_secure_model_loading", {}) is True
        assert options.value("auto_discover", {}) is False
        assert options.value("enable_builtin", {}) is False
        environ = {"MLFLOW_ENABLE_SECURE_MODEL_LOADING": "false"}
        assert options.value("enable_secure_model_loading", environ) is False

    def test_paths(self) -> None:
        Path("mlflow.conf").write_text("[plugins]\nplugin_paths = /a: /b\n  /c\n")
        assert options.value("plugin_paths", {}) == ("/a", "/b", "/c")

    def test_names_are_used_once(self) -> None:
        assert len(BY_NAME) == len(OPTIONS)
