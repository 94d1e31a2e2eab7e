"""The files for containers name what there is, and obey their formats. (No container is run here.)"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from genesis_flow.cli.main import cli
from genesis_flow.cli.migrate import cli as migrate
from genesis_flow.plugins import server_app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
VARIABLES = (ROOT / "docs" / "configuration.md").read_text()


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(found, dict)
    return found


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


def test_compose_runs_commands_that_there_are(compose: dict[str, Any]) -> None:
    services = compose["services"]
    program, name, *options = services["server"]["command"]
    assert (program, name) == ("genesis-flow", "server")
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    ours = {text for parameter in found.params for text in parameter.opts}
    assert {option.split("=")[0] for option in options} <= ours | {
        "--allowed-hosts",
        "--artifacts-destination",
    }
    program, name = services["migrate"]["command"]
    assert program == "genesis-migrate"
    assert name in migrate.commands
    assert (DEPLOY / services["server"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / services["server"]["build"]["dockerfile"]).is_file()
    assert (DEPLOY / compose["configs"]["prepare_mongodb"]["file"]).is_file()
    for service in services.values():
        for name in service.get("depends_on", {}):
            assert name in services


def test_compose_has_secrets_in_files_alone(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        variables = service["environment"]
        assert all("@" not in value for value in variables.values())
        secrets = {key: value for key, value in variables.items() if "PASSWORD" in key}
        assert secrets, name
        for key, value in secrets.items():
            assert key.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in service["secrets"]
        ours = [key for key in variables if key.startswith("GENESIS_FLOW")]
        assert all(f"`{key}`" in VARIABLES for key in ours)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {secret["file"].split("/")[0] for secret in compose["secrets"].values()} == {"secrets"}
    assert "deploy/secrets/" in ignored


def test_compose_obeys_the_specification(tmp_path: Path) -> None:
    check = [*tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    refused_when_wrong(check, "compose.yaml", ("image:", "imagine:"), tmp_path)


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_manifests_obey_the_schemas_of_kubernetes(version: str, tmp_path: Path) -> None:
    check = [*tool("kubernetes-validate"), "--strict", "-k", version]
    refused_when_wrong(
        check, "kubernetes.yaml", ("readOnlyRootFilesystem:", "readonlyRootFilesystem:"), tmp_path
    )


def test_the_dockerfile_has_no_remarks_of_hadolint(tmp_path: Path) -> None:
    check = [*tool("hadolint"), "--failure-threshold", "info"]
    refused_when_wrong(check, "Dockerfile", ("FROM python:3.12-slim AS", "FROM python:latest AS"), tmp_path)


def refused_when_wrong(check: list[str], name: str, wrong: tuple[str, str], folder: Path) -> None:
    """Our file passes, and the check is one that can fail."""
    done = subprocess.run([*check, str(DEPLOY / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (DEPLOY / name).read_text()
    assert wrong[0] in text
    (folder / name).write_text(text.replace(*wrong))
    refused = subprocess.run([*check, str(folder / name)], capture_output=True, text=True, check=False)
    assert refused.returncode != 0, refused.stdout


def tool(name: str) -> list[str]:
    """A linter that the extra `dev` installs beside this Python."""
    path = Path(sys.executable).with_name(name)
    if not path.exists() and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed; the extra dev has it")
    return [str(path)]


def test_all_say_that_they_were_not_run() -> None:
    for name in ("Dockerfile", "kubernetes.yaml", "compose.yaml"):
        assert re.search("^# NOT RUN", (ROOT / "deploy" / name).read_text(), re.MULTILINE)
