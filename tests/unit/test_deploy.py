"""The files for containers name what there is: commands, options, variables, probes. (None is run here.)"""

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from genesis_flow.cli.main import cli
from genesis_flow.cli.migrate import cli as migrate
from genesis_flow.plugins import server_app

ROOT = Path(__file__).parents[2]
VARIABLES = (ROOT / "docs" / "configuration.md").read_text()


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def container(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = document["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_probes_ask_the_endpoints_that_there_are(manifest: dict[str, dict[str, Any]]) -> None:
    server = container(manifest["Deployment"])
    assert server["livenessProbe"]["httpGet"]["path"] == server_app.LIVE
    assert server["startupProbe"]["httpGet"]["path"] == server_app.LIVE
    assert server["readinessProbe"]["httpGet"]["path"] == server_app.READY
    assert server["readinessProbe"]["timeoutSeconds"] > server_app.READY_SECONDS
    assert server_app.LIVE in (ROOT / "deploy" / "Dockerfile").read_text()


def test_commands_and_their_options_exist(manifest: dict[str, dict[str, Any]]) -> None:
    program, name, *options = container(manifest["Deployment"])["args"]
    assert program == "genesis-flow"
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    known = {text for parameter in found.params for text in parameter.opts} | {"--allowed-hosts"}
    assert {option.split("=")[0] for option in options} <= known
    program, name = container(manifest["Job"])["command"]
    assert program == "genesis-migrate"
    assert name in migrate.commands


def test_variables_are_documented_and_hold_no_password(manifest: dict[str, dict[str, Any]]) -> None:
    variables = manifest["ConfigMap"]["data"]
    assert all(f"`{name}`" in VARIABLES for name in variables)
    assert "@" not in variables["GENESIS_FLOW_MONGODB_URI"]
    mounted = variables["GENESIS_FLOW_MONGODB_PASSWORD_FILE"]
    for kind in ("Job", "Deployment"):
        (mount,) = (
            mount
            for mount in container(manifest[kind])["volumeMounts"]
            if mount["name"] == "mongodb-password"
        )
        assert mounted == f"{mount['mountPath']}/{next(iter(manifest['Secret']['stringData']))}"


def test_both_say_that_they_were_not_run() -> None:
    for name in ("Dockerfile", "kubernetes.yaml"):
        assert re.search("^# NOT RUN", (ROOT / "deploy" / name).read_text(), re.MULTILINE)
