"""The check that keeps private names and versions of MLflow in one place."""

import pytest

from tools.check_mlflow_names import check_source, main

FORBIDDEN = {
    "a private name": "from mlflow.utils.validation import _validate_tag",
    "among public ones, over several lines": "from mlflow.utils.validation import (\n    MAX,\n    _MIN,\n)",
    "renamed": "from mlflow.utils.validation import _validate_tag as validate_tag",
    "a private module": "from mlflow.tracking._tracking_service.utils import get",
    "a private module, imported whole": "import mlflow.tracking._model_registry.utils as registry",
    "only for types": "if TYPE_CHECKING:\n    from mlflow.entities.dataset_summary import _DatasetSummary",
    "in a function": "def f():\n    from mlflow.tracking import _get_store",
    "looked up in the package": "import mlflow\nmlflow.tracking._get_store()",
    "looked up in a module": "from mlflow.utils import validation as rules\nrules._validate_tag('k', 'v')",
    "looked up in a class": "from mlflow.utils.search_utils import SearchUtils\nSearchUtils._trim('`a`')",
    "looked up by text": "import mlflow.tracking\ngetattr(mlflow.tracking, '_get_store')",
    "imported by text": "import importlib\nimportlib.import_module('mlflow.tracking._model_registry')",
    "the version's module": "from mlflow.version import VERSION",
    "the version": "import mlflow\nprint(mlflow.__version__)",
    "the package's version": "from importlib.metadata import version\nversion('mlflow-skinny')",
}
ALLOWED = {
    "public names": "import mlflow\nfrom mlflow.utils.validation import MAX_TAG\nmlflow.set_tag('_a', '_b')",
    "our own private names": "from genesis_flow.query import _page\nself._page = _page._rows",
    "names of Python": "import mlflow\nmlflow.__file__, mlflow.entities.Run.__init__",
    "a package with a similar name": "import mlflowx\nmlflowx._private, version('mlflowx')",
}


@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_breaks_with_the_next_version_is_found(source: str) -> None:
    (found,) = check_source(source, "genesis_flow/some.py")
    assert found.startswith("genesis_flow/some.py:")
    assert found.endswith("move it to genesis_flow/compat and import it from there")


@pytest.mark.parametrize("source", ALLOWED.values(), ids=ALLOWED)
def test_the_rest_is_left_alone(source: str) -> None:
    assert list(check_source(source, "genesis_flow/some.py")) == []


def test_the_package_keeps_to_it() -> None:
    assert main() == 0
