"""Make a development environment with one version of MLflow.

    python tools/mlflow_environment.py FOLDER 3.18.0

A version that the package index has only in part, `mlflow` without `mlflow-skinny` and `mlflow-tracing`, is
installed as the whole wheel, which holds both, without its dependencies: those are then of the version that
FALLBACK says. `pip check` complains about such an environment, but everything in it runs.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FALLBACK = "3.17.2"
PARTS = ("mlflow", "mlflow-skinny", "mlflow-tracing")


def make(folder: Path, version: str) -> None:
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    if _is_complete(python, version):
        _install(python, version)
    else:
        print(f"The index has no whole MLflow {version}: its wheel goes over {FALLBACK}", flush=True)
        _install(python, FALLBACK)
        _put_wheel_in_place(python, version)
    found = _output(python, "-c", "import mlflow.version; print(mlflow.version.VERSION)")
    if found != version:
        raise SystemExit(f"{python} runs MLflow {found} and not {version}.")
    # Tests start many interpreters, and a compilation of MLflow takes ten seconds. Some packages' files are
    # not meant for this Python, which the exit code tells.
    subprocess.run([python, "-m", "compileall", "-q", "-j", "0", folder / "lib"], check=False)


def _is_complete(python: Path, version: str) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        wanted = [f"{name}=={version}" for name in PARTS]
        command = [python, "-m", "pip", "download", "-q", "--no-deps", "--dest", scratch, *wanted]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _install(python: Path, version: str) -> None:
    _pip(python, "install", "-q", "-e", f"{ROOT}[dev]", *(f"{name}=={version}" for name in PARTS))


def _put_wheel_in_place(python: Path, version: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # First, so that what fails leaves an environment that works.
        _pip(python, "download", "-q", "--no-deps", "--dest", scratch, f"mlflow=={version}")
        (wheel,) = Path(scratch).glob("*.whl")
        # All three own files of the package `mlflow`.
        _pip(python, "uninstall", "-q", "-y", *PARTS)
        _pip(python, "install", "-q", "--no-deps", str(wheel))


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", *arguments], check=True)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Make an environment with one version of MLflow.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("version")
    options = parser.parse_args()
    try:
        make(options.folder.resolve(), options.version)
    except subprocess.CalledProcessError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
