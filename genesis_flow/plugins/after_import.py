"""Hooks for what a server's processes load, told of as soon as it is loaded.

MLflow imports its plugins in every process that it starts: the server, its workers, Huey's consumers, the
executor's runner, each job. There is no other place that all of them come by. A process that loads none of
these modules pays one look into a set for each import; one that was given no URI of ours loads nothing more
than the hooks of models, which are small.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType

# Loaded late enough that what they call may still be replaced.
LOGIN_MODULES = frozenset({"mlflow.server.auth", "mlflow.server.auth.sqlalchemy_store"})
# It loads all that uploads and downloads models.
MODEL_MODULE = "mlflow.tracking.client"
# Needed in the process of a job, and loaded by programs of users, too.
MODULES_OF_JOBS = frozenset({"mlflow.genai.utils.gateway_utils"})
JOB_VARIABLE = "_MLFLOW_SERVER_JOB_ID"
MODULES = (
    LOGIN_MODULES
    | MODULES_OF_JOBS
    | frozenset(
        {
            MODEL_MODULE,
            "mlflow.cli",
            "mlflow.genai.discovery.scheduler",
            "mlflow.genai.scorers.job",
            "mlflow.server",
            "mlflow.server.jobs.lock_manager",
            "mlflow.server.jobs.utils",
            "mlflow.store.jobs.sqlalchemy_store",
        }
    )
)


def install() -> None:
    """Wait for the modules; once, whoever asks."""
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
        for name in sorted(MODULES & sys.modules.keys()):
            _loaded(name)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds a module as Python does; its loader stays what it is, and calls us at its end."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MODULES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _loaded(fullname)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _loaded(name: str) -> None:
    if name == MODEL_MODULE:
        from genesis_flow.plugins.model_hooks import apply_model_hooks

        apply_model_hooks()
        return
    # Where users are kept stands in a file of the login: who loads it may need us.
    if name not in LOGIN_MODULES and not _may_need_hooks():
        return
    if name in MODULES_OF_JOBS and JOB_VARIABLE not in os.environ:
        return
    from genesis_flow.plugins.hooks import apply_loaded_hooks

    apply_loaded_hooks(name)


def _may_need_hooks() -> bool:
    """Whether a URI of ours is in the command line or the environment, where servers have them.

    Without this each command of MLflow on another store would load ours: 0.4 seconds.
    """
    from genesis_flow.core.uri import SCHEMES

    given = (*sys.argv, *os.environ.values())
    return any(f"{scheme}:" in text for text in given for scheme in SCHEMES)
