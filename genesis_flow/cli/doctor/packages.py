"""Whether the MLflow that is installed was tested."""

from genesis_flow.cli.doctor.finding import Finding, ok, warn
from genesis_flow.compat.packages import TESTED, TESTED_IN_WORDS, is_tested
from genesis_flow.compat.version import VERSION


def mlflow() -> Finding:
    details = {"version": VERSION, "tested": list(TESTED)}
    if is_tested(VERSION):
        return ok("MLflow", f"MLflow {VERSION}, which was tested.", **details)
    return warn(
        "MLflow",
        f"MLflow {VERSION} was not tested with this genesis_flow.",
        f"Tested are {TESTED_IN_WORDS}: prefer one of these, or a newer genesis_flow.",
        **details,
    )
