"""The tool that tells what another MLflow changes, on small packages made for it and on the installed one."""

import json
import zipfile
from pathlib import Path

import pytest

from genesis_flow.plugins.hooks import HOOKS, Hook
from tools import mlflow_drift as drift
from tools.mlflow_tree import MlflowTree

# What two files of ours imported before MLflow 3.18 renamed it.
BEFORE_3_18 = """
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import (
    _REGISTERED_MODEL_ALIAS_LATEST,
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)
"""
EITHER = """
try:
    from mlflow.{} import {}
except ImportError:
    from mlflow.{} import {}
"""
VALIDATION = """
_REGISTERED_MODEL_ALIAS_LATEST = "latest"

def _validate_{alias}(name): ...

def _validate_{alias}_reserved(name): ...

def _validate_model_name(name): ...
"""
STORE = """
from mlflow.store.tracking.abstract_store import AbstractStore

class SqlAlchemyStore(AbstractStore):
    def get_run(self, run_id{more}): ...

    def _private(self): ...
"""
ABSTRACT = """
class AbstractStore:
    def get_run(self, run_id): ...

    def create_run(self, experiment_id, *, tags: dict[str, str] = None): ...
"""


def package(folder: Path, version: str = "3.17.2", **changed: str) -> MlflowTree:
    """A package mlflow with a handful of modules, some of them ``changed``."""
    files = {
        "__init__": "from mlflow.exceptions import *",
        "version": f'VERSION: str = "{version}"',
        "exceptions": "class MlflowException(Exception): ...",
        "utils/__init__": "",
        "utils/validation": VALIDATION.format(alias="model_alias_name"),
        "utils/moved": EITHER.format("exceptions", "MlflowException as Kept", "exceptions", "Kept"),
        "protos/things_pb2": r"DESCRIPTOR = _add(b'\n\x05Thing\x12\x10/mlflow/things/get')",
        "store/tracking/sqlalchemy_store": STORE.format(more=""),
        "store/tracking/abstract_store": ABSTRACT,
        "store/db_migrations/versions/abc_first": 'revision = "abc"',
        **changed,
    }
    for name, text in files.items():
        path = folder / "mlflow" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return MlflowTree(folder)


def broken(text: str, tree: MlflowTree) -> list[str]:
    return [found.name for found in drift.broken_imports(list(drift.imports_of(text, "ours.py")), tree)]


def changes(before: MlflowTree, after: MlflowTree, text: str = "") -> set[str]:
    groups = list(drift.imports_of(text, "ours.py"))
    return {
        str(found) for found in drift.differences(drift.survey(before, groups), drift.survey(after, groups))
    }


def test_names_that_3_18_renamed(tmp_path: Path) -> None:
    """The case for which this tool was written: the registry did not import, and nothing had told so."""
    renamed = package(tmp_path / "new", **{"utils/validation": VALIDATION.format(alias="alias_name")})
    assert broken(BEFORE_3_18, package(tmp_path / "old")) == []
    assert broken(BEFORE_3_18, renamed) == [
        "mlflow.utils.validation._validate_model_alias_name",
        "mlflow.utils.validation._validate_model_alias_name_reserved",
    ]


def test_a_name_with_an_alternative_is_not_broken(tmp_path: Path) -> None:
    tree = package(tmp_path)
    place, newer, older = "utils.validation", "_validate_alias_name", "_validate_model_alias_name"
    assert broken(EITHER.format(place, newer, place, older), tree) == []
    assert broken(EITHER.format(place, newer, place, "_validate_gone"), tree) == [
        "mlflow.utils.validation._validate_alias_name"
    ]


def test_a_name_of_a_newer_version_is_looked_for_there(tmp_path: Path) -> None:
    line = "from mlflow.utils.validation import newer  # since MLflow 3.18"
    assert broken(line, package(tmp_path / "old", "3.17.2")) == []
    assert broken(line, package(tmp_path / "new", "3.18.0")) == ["mlflow.utils.validation.newer"]


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("from mlflow import MlflowException", False),  # by a star
        ("from mlflow.utils import validation", False),  # a module
        ("from mlflow.utils.moved import Kept", False),  # bound in a try
        ("from mlflow.protos.things_pb2 import Thing", False),  # in a descriptor
        ("import mlflow.utils.validation as v", False),
        ("import mlflow.utils.missing", True),
        ("from mlflow.utils.missing import x", True),
        ("from mlflow.protos.things_pb2 import Other", True),
        ("from mlflow import Other", True),
        ("def f():\n    if True:\n        from mlflow.exceptions import Other", True),
        ("from mlflowish import anything", False),
    ],
)
def test_what_an_import_finds(line: str, gone: bool, tmp_path: Path) -> None:
    assert bool(broken(line, package(tmp_path))) is gone


def test_changes_that_have_to_be_read(tmp_path: Path) -> None:
    after = package(
        tmp_path / "new",
        **{
            "store/tracking/sqlalchemy_store": STORE.format(more=", whole=False")
            + "\n    def create_skill(self, name): ...\n",
            "store/tracking/abstract_store": ABSTRACT.replace("create_run", "start_run"),
            "utils/validation": VALIDATION.format(alias="model_alias_name").replace(
                "_validate_model_name(name)", "_validate_model_name(name, kind='Model')"
            ),
            "store/db_migrations/versions/def_second": 'revision: str = "def"',
            "protos/things_pb2": r"DESCRIPTOR = _add(b'\n\x05Thing\x12\x10/mlflow/things/put')",
        },
    )
    assert changes(package(tmp_path / "old"), after, BEFORE_3_18) == {
        "method of tracking: get_run takes (self, run_id, whole=False) instead of (self, run_id)",
        "method of tracking: create_skill is new: (self, name)",
        "method of tracking: start_run is new: (self, experiment_id, *, tags=None)",
        "method of tracking: create_run is gone",
        "function we call: mlflow.utils.validation._validate_model_name "
        "takes (name, kind='Model') instead of (name)",
        "database revision: def is new",
        "route: /mlflow/things/put is new",
        "route: /mlflow/things/get is gone",
    }


HOOKED = """
from mlflow.other import handed_on

def plain(store): ...

class Made:
    def __init__(self, uri): ...

    def method(self, a, *, b=1): ...
"""


@pytest.mark.parametrize(
    ("module", "name", "parameters", "told"),
    [
        ("hooked", "plain", ("store",), None),
        ("hooked", "Made", ("uri",), None),
        ("hooked", "Made.method", ("self", "a", "b"), None),
        ("hooked", "handed_on", (), None),
        ("hooked", "plain", ("store", "more"), "takes store instead of store, more, so calls are off"),
        ("hooked", "handed_on", ("store",), "takes nothing instead of store, so calls are off"),
        ("hooked", "Made.gone", ("self",), "is gone, so calls are off"),
        ("hooked", "gone", (), "is gone, so calls are off"),
        ("missing", "plain", ("store",), "is gone, so calls are off"),
    ],
)
def test_hooks_whose_place_has_changed(
    module: str, name: str, parameters: tuple[str, ...], told: str | None, tmp_path: Path
) -> None:
    tree = package(tmp_path, hooked=HOOKED, other="def handed_on(): ...")
    row = Hook(f"mlflow.{module}", name, parameters, "calls", lambda original: original)
    assert [each.what for each in drift.broken_hooks([row], tree)] == ([told] if told else [])


def test_all_hooks_are_looked_at() -> None:
    rows = drift.our_hooks()
    assert set(HOOKS) <= set(rows)
    assert list(drift.broken_hooks(rows, MlflowTree(drift.installed()))) == []


def test_nothing_changed(tmp_path: Path) -> None:
    assert changes(package(tmp_path / "old"), package(tmp_path / "new", "3.17.3"), BEFORE_3_18) == set()


def test_a_wheel_is_read_as_a_folder_is(tmp_path: Path) -> None:
    folder = package(tmp_path)
    wheel = tmp_path / "mlflow.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        for name in folder.names:
            packed.writestr(name, folder.read(name))
    assert MlflowTree(wheel).version == "3.17.2"
    assert changes(folder, MlflowTree(wheel), BEFORE_3_18) == set()
    with pytest.raises(FileNotFoundError, match="name a wheel"):
        MlflowTree(tmp_path / "mlflow")


def test_exit_codes_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A package without most of what we import breaks us. What is installed does not: a step of CI."""
    package(tmp_path, "4.0.0")
    assert drift.main([str(tmp_path), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["version"] == "4.0.0"
    assert "mlflow.tracking_store" in {each["name"] for each in report["broken"]}


def test_what_is_recorded_is_a_version_that_is_tested() -> None:
    recorded = json.loads(drift.RECORDED.read_text())
    assert recorded["version"].startswith("3.")
    assert recorded["stores"]["tracking"]["get_run"] == "(self, run_id)"
    assert "MLFLOW_ENABLE_AI_GATEWAY" in recorded["variables"]
