"""Run by Python when it starts: what tests have to change in MLflow's server.

MLflow knows one address of Gemini, and has to call the one of a test. Huey starts a process for each kind of
job, and a test has few kinds. Schedules of issue detection are looked at every quarter of an hour.
"""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def _gemini(module: ModuleType) -> None:
    module.GeminiProvider.base_url = os.environ["GEMINI_OF_TESTS"]  # type: ignore[attr-defined]


def _jobs(module: ModuleType) -> None:
    module._SUPPORTED_JOB_FUNCTION_LIST[:] = os.environ["JOBS_OF_TESTS"].split(",")  # type: ignore[attr-defined]


def _schedule(module: ModuleType) -> None:
    module.POLL_INTERVAL_MINUTES = int(os.environ["MINUTES_OF_TESTS"])  # type: ignore[attr-defined]


CHANGES = {
    "mlflow.gateway.providers.gemini": ("GEMINI_OF_TESTS", _gemini),
    "mlflow.server.jobs": ("JOBS_OF_TESTS", _jobs),
    "mlflow.genai.discovery.schedule": ("MINUTES_OF_TESTS", _schedule),
}


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        variable, change = CHANGES.get(name, ("", None))
        if change is None or variable not in os.environ:
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if any(variable in os.environ for variable, _ in CHANGES.values()):
    sys.meta_path.insert(0, _Finder())
