"""MCP servers and skills by MLflow's own clients: beside the database, through a server, and by command."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities.mcp_server import MCPStatus
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import MlflowHostCreds

from tests.scenes import Stage, play
from tests.scenes.mcp import SERVER
from tests.versions import since_3_18


async def test_every_call_over_rest(server: str, genesis_uri: str, tmp_path: Path) -> None:
    """The calls of the scenes, whose server is then there for a client beside the database."""
    rest = RestStore(lambda: MlflowHostCreds(server))

    async def call(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("link_mcp_server_versions_to_trace", "get_mcp_server_versions_for_trace"):
            return None  # MLflow's server has no routes for them.
        # What the files are that go along, only the server asks its store.
        asked = name.removesuffix("_and_collect_artifacts")
        return getattr(rest, asked)(*args, **kwargs)

    await play(Stage(call, call, tmp_path), "mcp", "skills")
    assert MlflowClient(genesis_uri).get_mcp_server(SERVER).latest_version == "1.0.0"


def test_both_clients_see_the_same(server: str, genesis_uri: str) -> None:
    direct, through = MlflowClient(genesis_uri), MlflowClient(server)
    name = "com.example/both"
    for client, version in ((direct, "1.0.0"), (through, "2.0.0-rc.1")):
        client.create_mcp_server_version({"name": name, "version": version}, tools=[])
    direct.update_mcp_server_version(name, "1.0.0", status=MCPStatus.ACTIVE)
    through.set_mcp_server_alias(name, "next", "2.0.0-rc.1")
    through.create_mcp_access_endpoint(name, "https://example.com/mcp", server_alias="next")
    assert direct.get_mcp_server(name) == through.get_mcp_server(name)
    assert (
        direct.search_mcp_servers(f"name = '{name}'")[0].access_endpoints[0].url == "https://example.com/mcp"
    )
    for found in (each.get_mcp_server_version_by_alias(name, "next") for each in (direct, through)):
        assert (found.version, found.aliases) == ("2.0.0-rc.1", ["next"])


def test_functions_of_mlflow_genai(genesis_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", genesis_uri)
    mlflow.set_tracking_uri(genesis_uri)
    try:
        name = "com.example/fluent"
        mlflow.genai.register_mcp_server({"name": name, "version": "1.0.0"}, tools=[])
        assert mlflow.genai.get_mcp_server(name).latest_version == "1.0.0"
        assert [each.name for each in mlflow.genai.search_mcp_servers(f"name = '{name}'")] == [name]
    finally:
        mlflow.set_tracking_uri(None)


@since_3_18
def test_a_folder_is_uploaded_as_a_skill(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reads the upload with a library that MLflow does not install, and our extra does."""
    from mlflow.cli.skills import commands

    if find_spec("python_multipart") is None:
        missing = "python-multipart is missing: pip install '.[server]'"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    folder, pulled = tmp_path / "folder", tmp_path / "pulled"
    (folder / "more").mkdir(parents=True)
    texts = {
        "SKILL.md": "---\nname: uploaded\ndescription: Says hello.\n---\nHello.\n",
        "more/words.txt": "hello",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)

    def command(*words: str) -> None:
        done = CliRunner().invoke(commands, list(words))
        assert done.exit_code == 0, done.output

    command("register", "--source", str(folder))
    command("pull", "skills:/uploaded/1", "--destination", str(pulled))
    assert {name: (pulled / name).read_text() for name in texts} == texts


@since_3_18
def test_commands_for_skills(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.cli.skills import commands

    MlflowClient(server)._tracking_client.store.create_skill_version("greeting", source="https://x/a.zip")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)

    def command(*words: str) -> str:
        done = CliRunner().invoke(commands, list(words))
        assert done.exit_code == 0, done.output
        return done.stdout

    command("set-alias", "skills:/greeting", "--alias", "prod", "--version", "1")
    command("set-tag", "skills:/greeting", "--key", "k", "--value", "v")
    command("update", "skills:/greeting", "--description", "Says hello.")
    assert "prod" in command("get-version", "skills:/greeting@prod", "--output", "json")
    assert "Says hello." in command("search", "--filter-string", "tags.k = 'v'", "--output", "json")
    command("update-version", "skills:/greeting/1", "--status", "deprecated")
    assert "deprecated" in command("search-versions", "skills:/greeting", "--output", "json")
    command("delete-version", "skills:/greeting/1")
    assert "prod" not in command("get", "skills:/greeting", "--output", "json")
