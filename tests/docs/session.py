"""A reader who follows a page: one scratch directory, one shell environment, blocks in their order."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from genesis_flow import embedded
from tests.client.conftest import user_environment
from tests.docs.pages import Block

PATIENCE_SECONDS = 150

# Whatever happens, leave the environment and the directory behind for the next block.
_SHELL = """
set -euo pipefail
leave() { local code=$?; env -0 > "$SESSION_ENVIRONMENT"; pwd > "$SESSION_DIRECTORY"; exit $code; }
trap leave EXIT
"""


class Session:
    """What the examples call a server at localhost or db.example.com is the tests' own mongod."""

    def __init__(self, folder: Path, server: str, database: str) -> None:
        self.folder = folder
        self.directory = folder / "work"
        self.directory.mkdir(parents=True)
        host = server.removeprefix("mongodb://").partition("/")[0]
        self.store_uri = f"mongodb://{host}/{database}"
        self.stands_for = {
            r"mongodb://(?:localhost(?::27017)?|db\.example\.com)/mlflow\b": self.store_uri,
            r"/home/me\b": str(folder / "home"),
        }
        self.environment = user_environment(
            HOME=str(folder / "home"),
            PATH=os.pathsep.join(
                (str(self._refusals()), str(Path(sys.executable).parent), os.environ["PATH"])
            ),
            TMPDIR=str(folder),
        )
        (folder / "home").mkdir()

    def _refusals(self) -> Path:
        """Programs that no page may run here: they would change the environment that runs the tests."""
        folder = self.folder / "refused"
        folder.mkdir()
        for name in ("pip", "pip3", "apt-get", "npm"):
            program = folder / name
            program.write_text("#!/bin/sh\necho 'This would install something: mark the block.'\nexit 1\n")
            program.chmod(0o755)
        return folder

    def run(self, block: Block) -> subprocess.CompletedProcess[str]:
        """Run a block; standard output and errors come as one text."""
        code = self.substituted(block.code)
        if block.mark == "file":
            (self.directory / block.argument).write_text(code)
            return subprocess.CompletedProcess([], 0, "")
        if block.language == "python":
            script = self.folder / "block.py"
            script.write_text(code)
            return self._process(
                [sys.executable, str(Path(__file__).with_name("python_block.py")), str(script)]
            )
        return self._shell(code)

    def substituted(self, text: str) -> str:
        for pattern, value in self.stands_for.items():
            text = re.sub(pattern, value.replace("\\", r"\\"), text)
        return text

    def _shell(self, code: str) -> subprocess.CompletedProcess[str]:
        left = {
            "SESSION_ENVIRONMENT": str(self.folder / "environment"),
            "SESSION_DIRECTORY": str(self.folder / "directory"),
        }
        done = self._process(["bash", "-c", _SHELL + code], **left)
        variables = (self.folder / "environment").read_text().split("\0")
        self.environment = dict(each.split("=", 1) for each in variables if "=" in each)
        self.directory = Path((self.folder / "directory").read_text().strip())
        return done

    def _process(self, command: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment | extra,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            printed, _ = process.communicate()
            raise AssertionError(f"does not end: {command[-1]}\n{printed}") from None
        return subprocess.CompletedProcess(command, process.returncode, printed)

    def close(self) -> None:
        """Stop the embedded servers that the page started, and remove everything."""
        for data in self.folder.rglob("db"):
            if data.is_dir() and (data / "mongod.lock").exists():
                embedded.stop(data.parent, force=True)
        shutil.rmtree(self.folder)
