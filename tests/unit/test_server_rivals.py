"""A plugin of somebody else that claims our schemes: ``genesis-flow server`` does not start beside it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from genesis_flow.cli.main import cli

URI = "mongodb://localhost:1/nowhere"


@pytest.mark.parametrize(
    "group",
    [
        f"mlflow.{each}"
        for each in ("tracking_store", "model_registry_store", "workspace_provider", "scorer_store")
    ],
)
def test_a_server_does_not_start_beside_another_plugin_for_its_store(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of its processes might have the other one's store, as the order of packages falls."""
    told = tmp_path / "another_plugin-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: another-plugin\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(f"[{group}]\nmongodb = another_plugin:Store\n")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = CliRunner().invoke(cli, ["server", "--backend-store-uri", URI])
    assert outcome.exit_code == 1
    claims = f"another-plugin (another_plugin:Store) also claims mongodb:// for {group}"
    assert claims in outcome.output
    assert "Opening" not in outcome.output
