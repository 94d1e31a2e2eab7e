"""Run ``genesis-flow doctor`` and look at what it found."""

import json
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from genesis_flow.cli.main import cli

CANARY = "p4ssw0rd-canary"


@dataclass(frozen=True)
class Report:
    code: int
    checks: dict[str, dict[str, Any]]
    output: str

    def verdict(self, check: str) -> str:
        return str(self.checks[check]["verdict"])

    def told(self, check: str) -> str:
        return f"{self.checks[check]['message']} {self.checks[check]['advice']}"


def examine(*options: str, uri: str, **environment: str) -> Report:
    """What a program gets; people get the same words."""
    done = CliRunner().invoke(cli, ["doctor", "--uri", uri, "--json", *options], env=environment)
    assert CANARY not in done.output
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["healthy"] is (done.exit_code == 0)
    return Report(done.exit_code, {check["check"]: check for check in report["checks"]}, done.output)
