"""docs/schema is what the document models say, and the generator notices when it is not."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
from pydantic import BaseModel, Field
from pymongo import IndexModel

from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.documents.indexes import Index
from genesis_flow.stores.areas import DECLARED

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "gen_schema_docs.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_schema_docs", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generator = load()


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    """All of the code is read for it, which takes seconds."""
    made: dict[Path, str] = generator.generate()
    return made


@pytest.fixture(scope="module")
def pages(generated: dict[Path, str]) -> dict[str, str]:
    return {path.stem: text for path, text in generated.items()}


def test_every_collection_field_and_index_has_its_line(pages: dict[str, str]) -> None:
    assert len(pages) == len(DECLARED) + 1
    for model in DECLARED:
        settings = model.Settings  # type: ignore[attr-defined]
        page = pages[settings.name]
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in page
        for index in settings.indexes:
            assert f"| `{index.document['name']}` |" in page
            assert all(f"{field}: " in page for field in index.document["key"])
        assert f"[{settings.name}]({settings.name}.md)" in pages["README"]


def test_nested_fields_options_and_relations_are_told(pages: dict[str, str]) -> None:
    assert "| `latest.step` | integer |" in pages["latest_metrics"]
    assert "→ [experiments](experiments.md)" in pages["runs"]
    assert "- `experiment_id` of [runs](runs.md)" in pages["experiments"]
    assert "partialFilterExpression `{'status': 'ERROR'}`" in pages["spans"]
    assert "| unique |" in pages["datasets"]
    assert "experiments ||--o{ runs : experiment_id" in pages["README"]


def calls(page: str) -> set[str]:
    return {call.strip(" `.\n") for call in page.split("## Used by")[1].split(",")}


def test_the_calls_that_use_a_collection_are_found(pages: dict[str, str]) -> None:
    assert {"create_run", "log_param", "_search_runs", "_hard_delete_run"} <= calls(pages["runs"])
    assert {"log_metric", "log_batch", "get_metric_history"} <= calls(pages["metrics"])
    # An endpoint of the gateway makes the experiment of its traces; users, roles and grants have numbers.
    experiments = {"create_experiment", "create_gateway_endpoint", "update_gateway_endpoint"}
    roles = {"create_user", "create_role", "add_role_permission", "assign_role_to_user"}
    grants = {"grant_user_permission", "grant_user_permissions", "grant_user_resource_permission"}
    assert calls(pages["counters"]) == experiments | roles | grants
    assert "log_param" not in calls(pages["metrics"])
    assert "create_run" not in calls(pages["registered_models"])


def test_check_names_what_differs_and_writing_mends_it(
    generated: dict[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(generator, "generate", lambda: generated)
    schema = tmp_path / "docs" / "schema"
    shutil.copytree(ROOT / "docs" / "schema", schema)
    (schema / "runs.md").write_text("old")
    (schema / "tags.md").write_text("of no collection")
    (schema / "spans.md").unlink()
    assert generator.main(["--check", "--root", str(tmp_path)]) == 1
    assert set(capsys.readouterr().out.splitlines()) == {
        "docs/schema/runs.md: not up to date",
        "docs/schema/spans.md: missing",
        "docs/schema/tags.md: of no collection",
    }
    assert generator.main(["--root", str(tmp_path)]) == 0
    assert generator.main(["--check", "--root", str(tmp_path)]) == 0
    assert (schema / "runs.md").read_text() == (ROOT / "docs" / "schema" / "runs.md").read_text()


class Silent(BaseModel):
    """A run without words."""

    id: str = Field(alias="_id", description="Id.")
    secret: str

    class Settings:
        name = "runs"
        indexes: ClassVar[list[IndexModel]] = []


class Pointless(BaseModel):
    """A run whose index nobody explains."""

    id: str = Field(alias="_id", description="Id.")

    class Settings:
        name = "runs"
        indexes: ClassVar[list[IndexModel]] = [IndexModel("id", name="by_id")]


class Astray(BaseModel):
    """A run that points to nothing."""

    id: str = Field(alias="_id", description="Id.")

    class Settings:
        name = "runs"
        refers: ClassVar[dict[str, str]] = {"_id": "nothing"}
        indexes: ClassVar[list[Index]] = []


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (Silent, "Silent.secret has no description"),
        (Pointless, "Pointless: the index by_id is no Index(..., serves=...)"),
        (Astray, "Astray: Settings.refers says _id: nothing"),
    ],
)
def test_what_a_model_leaves_out_is_named(
    model: type[BaseModel], problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = [model if each is RunFields else each for each in DECLARED]
    monkeypatch.setattr(generator, "DECLARED", declared)
    assert generator.main(["--check"]) == 1
    assert problem in capsys.readouterr().err
