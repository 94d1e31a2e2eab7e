"""The probe of the artifact root: it writes one file, and leaves nothing."""

from pathlib import Path

import pytest

from genesis_flow.cli.doctor.artifacts import artifact_root
from genesis_flow.cli.doctor.finding import Finding
from genesis_flow.core.settings import Settings
from tests.doctor.helpers import CANARY


def probe(root: str, uri: str = "mongodb://localhost/mlflow", timeout: float = 30.0) -> Finding:
    return artifact_root(Settings.resolve(uri, artifact_root=root, environ={}), timeout)


def test_nothing_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("")
    for root in (kept, tmp_path / "new" / "deeper"):
        assert probe(str(root)).verdict == "ok"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = probe(str(tmp_path / "file" / "artifacts"))
    assert (finding.verdict, "Check that it exists" in finding.advice) == ("fail", True)
    assert str(tmp_path / "file") in finding.message


def test_what_only_some_clients_could_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.resolve("mongodb://localhost/mlflow", environ={})
    finding = artifact_root(settings, 30.0)
    assert finding.verdict == "warn"
    assert "GENESIS_FLOW_ARTIFACT_ROOT" in finding.advice
    assert list(tmp_path.iterdir()) == []


def test_a_root_behind_a_server_is_not_probed() -> None:
    assert probe("mlflow-artifacts:/").verdict == "skip"


@pytest.mark.parametrize("root", [f"ftp://ada:{CANARY}@127.0.0.1:1/artifacts", f"nonsense://x?sig={CANARY}"])
def test_no_password_is_shown(root: str) -> None:
    finding = probe(root)
    assert finding.verdict == "fail"
    assert CANARY not in f"{finding.message} {finding.advice} {finding.details}"
