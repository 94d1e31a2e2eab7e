"""``runs``, ``show`` and ``compare`` in a terminal and for programs, and ``completion``."""

import itertools
import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow.entities import Metric, Param, RunTag

from genesis_flow import MongoDBStore
from genesis_flow.areas.metrics.wide import WIDE_FROM
from genesis_flow.cli.look import text
from genesis_flow.cli.look.reader import Reader
from genesis_flow.cli.main import cli
from genesis_flow.core.settings import Settings
from tests.client.conftest import user_environment
from tests.commands import CommandRecorder
from tests.embedded.helpers import uri_of

CANARY = "p4ssw0rd-canary"
WITHOUT = ("numpy", "pandas", "sqlalchemy", "flask", "alembic")


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
def runs(store_uri: str, tmp_path: Path) -> list[str]:
    """Two runs of one experiment, and one of another that shares a name with the first."""
    store = MongoDBStore(store_uri, tmp_path.as_uri())
    first = store.create_experiment("first steps")
    other = store.create_experiment("second steps")
    made = []
    for number, (experiment, name) in enumerate(
        [(first, "rate 0.3"), (first, "rate 0.03"), (other, "rate 0.3")]
    ):
        run_id = store.create_run(
            experiment, "me", 1000 + number, [RunTag("note", "x\x1b[31m\ny")], name
        ).info.run_id
        rate = [0.3, 0.03, 0.1][number]
        points = [Metric("loss", math.exp(-rate * step / 10), step, step) for step in range(300)]
        store.log_batch(run_id, [*points, Metric("odd", math.nan, 1, 1)], [], [])
        params = [Param("rate", str(rate)), Param("kind", "same"), Param("long", "long " * 90)]
        source = RunTag("source", f"https://me:{CANARY}@host/repository")
        store.log_batch(run_id, [], params, [source])
        made.append(run_id)
    store.close()
    (tmp_path / first / made[0] / "artifacts" / "model").mkdir(parents=True)
    (tmp_path / first / made[0] / "artifacts" / "notes.txt").write_text("notes")
    return made


def run(uri: str, *words: str) -> Result:
    done = CliRunner().invoke(cli, [*words, "--uri", uri])
    assert CANARY not in done.output
    assert "\x1b" not in done.output
    return done


def answer(uri: str, *words: str) -> dict:
    done = run(uri, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout, parse_constant=pytest.fail)


def test_runs_are_listed_newest_first(store_uri: str, runs: list[str]) -> None:
    found = answer(store_uri, "runs")
    assert [each["run_id"] for each in found["runs"]] == runs[::-1]
    assert [each["experiment"] for each in found["runs"]] == ["second steps", "first steps", "first steps"]
    assert not found["has_more"]
    assert found["runs"][0]["metrics"]["odd"] == "NaN"
    lines = run(store_uri, "runs", "first steps", "--order-by", "metrics.loss ASC").stdout.splitlines()
    assert lines[0].split()[:6] == ["run", "name", "status", "started", "took", "loss"]
    assert [line.split()[0] for line in lines[1:]] == [runs[0], runs[1]]
    some = run(store_uri, "runs", "-n", "1", "--filter", "params.kind = 'same'").stdout
    assert "there are more runs than these 1" in some
    assert run(store_uri, "runs", "--deleted").stdout == "No runs.\n"
    by_id = answer(store_uri, "runs", found["runs"][1]["experiment_id"], "--filter", "metrics.loss > 0.1")
    assert [each["run_id"] for each in by_id["runs"]] == [runs[1]]


def test_a_run_is_shown(store_uri: str, runs: list[str]) -> None:
    shown = answer(store_uri, "show", runs[0][:10])
    assert shown["run_id"] == runs[0]
    loss = shown["metrics"]["loss"]
    assert (loss["step"], loss["points"], loss["sample"][0], loss["sample"][-1]) == (
        299,
        300,
        [0, 1.0],
        [299, pytest.approx(math.exp(-0.3 * 29.9))],
    )
    assert shown["artifacts"] == [
        {"path": "model", "is_dir": True, "bytes": None},
        {"path": "notes.txt", "is_dir": False, "bytes": 5},
    ]
    told = run(store_uri, "show", "rate 0.03").stdout
    for part in (runs[1], "first steps", "█▇", "step 299, 300 points", "x?[31m y", "***@host"):
        assert part in told


def test_a_run_is_shown_with_the_steps_that_wait(store_uri: str, tmp_path: Path) -> None:
    store = MongoDBStore(store_uri, tmp_path.as_uri())
    run_id = store.create_run("0", "me", 1, [], "wide").info.run_id
    for step in range(5):
        store.log_batch(run_id, [Metric(f"m{n}", step + n, step, step) for n in range(WIDE_FROM)], [], [])
    store.log_metric(run_id, Metric("m1", 7.0, 9, 2))
    store.close()
    shown = answer(store_uri, "show", run_id)["metrics"]["m1"]
    assert (shown["step"], shown["value"], shown["points"]) == (4, 5.0, 6)
    assert [point[0] for point in shown["sample"]] == [0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "rate 0.3"], "2 runs have the name 'rate 0.3'"),
        (["show", "nothing"], "No run has the name 'nothing'"),
        (["compare", "rate 0.03", "nothing"], "No run has the name 'nothing'"),
        (["runs", "first step"], "did you mean 'first steps'"),
        (["runs", "zzz"], "There is no experiment 'zzz': `genesis-flow runs` shows all."),
        (["runs", "--filter", "what"], "Invalid clause"),
    ],
)
def test_what_cannot_be_found_is_said(words: list[str], says: str, store_uri: str, runs: list[str]) -> None:
    done = run(store_uri, *words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_one_run_is_nothing_to_compare(store_uri: str) -> None:
    assert run(store_uri, "compare", "x").exit_code == 2


def test_runs_are_compared(store_uri: str, runs: list[str]) -> None:
    lines = [line.split() for line in run(store_uri, "compare", runs[0], runs[1]).stdout.splitlines()]
    assert ["run", runs[0], runs[1]] in lines
    assert ["rate", "0.3", "0.03"] in lines
    assert ["loss", "0.00012717", "0.40779", "+0.40766"] in lines
    assert ["odd", "nan", "nan", "-"] in lines
    assert "kind" not in [line[0] for line in lines]
    assert ["kind", "same", "same"] in [
        line.split() for line in run(store_uri, "compare", *runs[:2], "--all").stdout.splitlines()
    ]
    differences = answer(store_uri, "compare", *runs)
    assert differences["params"]["rate"] == {"values": ["0.3", "0.03", "0.1"], "differ": True}
    assert not differences["metrics"]["odd"]["differ"]


def test_a_run_whose_artifacts_cannot_be_listed_is_shown(store_uri: str) -> None:
    store = MongoDBStore(store_uri, "nowhere://me:canary@host")
    run_id = store.create_run("0", "me", 1, [], "far").info.run_id
    store.close()
    shown = answer(store_uri, "show", run_id)
    assert shown["artifacts"] is None
    assert "cannot be listed" in shown["artifacts_problem"]
    assert "canary" not in json.dumps(shown)


async def test_few_round_trips(store_uri: str, runs: list[str], commands: CommandRecorder) -> None:
    reader = Reader(Settings.resolve(store_uri))
    await reader.page(None, "", [], 1, 1)
    with commands.recording() as sent:
        await reader.page("first steps", "", [], 20, 1)
    # The experiment, its runs, their metrics.
    assert [name for name, _ in sent] == ["find", "find", "aggregate"]
    with commands.recording() as sent:
        await reader.details([runs[0][:8]])
    # Two to find it; the run with its metrics, their points; the blocks and the experiment behind them.
    assert len(sent) == 6
    await reader.close()


PROGRAM = """
import json, os, sys
without, widths, commands = map(json.loads, sys.argv[1:])
for name in without:
    sys.modules[name] = None  # an import of it fails as if it were not installed
from genesis_flow.cli.main import cli
for columns in widths:
    os.environ["COLUMNS"] = str(columns)
    for words in commands:
        cli(words, standalone_mode=False)
        print(end="END OF A COMMAND", flush=True)
"""


def test_a_terminal_gets_lines_that_fit_without_packages_of_the_full_mlflow(
    store_uri: str, runs: list[str]
) -> None:
    """One process for all: each would load MLflow's client for seconds."""
    commands = (["runs"], ["show", "rate 0.03"], ["compare", runs[0], runs[1], "--all"])
    widths = (60, 100)
    words = [[*command, "--uri", store_uri] for command in commands]
    shown, terminal = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(json.dumps, (WITHOUT, widths, words))],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        env=user_environment(PYTHONIOENCODING="utf-8"),
    )
    os.close(terminal)
    said = b""
    while True:
        try:
            said += os.read(shown, 65536)
        except OSError:  # the other end is closed
            break
    os.close(shown)
    assert done.stderr is not None
    errors = done.stderr.read()
    assert done.wait() == 0, errors
    *outputs, rest = said.decode().split("END OF A COMMAND")
    assert rest == ""
    for (columns, command), output in zip(itertools.product(widths, commands), outputs, strict=True):
        lines = output.splitlines()
        assert len(lines) >= 4
        assert max(map(text.columns_of, lines)) <= columns
        assert CANARY[:4] not in output
        assert ".." in output or command == ["runs"]


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = run(uri_of(tmp_path / "nowhere"), "runs")
    assert done.exit_code == 1
    assert "There is no embedded database in" in done.stderr
    assert not list(tmp_path.iterdir())


def test_curves() -> None:
    assert text.curve([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert text.curve([1, 1], 8) == "▅▅"
    assert text.curve([0, math.nan, math.inf, 1], 8) == "▁··█"
    assert text.curve([-1.7e308, 1.7e308], 8) == "▁█"
    assert text.curve([math.nan], 8) == "·"
    assert len(text.curve(range(1000), 24)) == 24
    assert text.curve(range(1000), 24)[0] + text.curve(range(1000), 24)[-1] == "▁█"


def test_tables_count_the_columns_of_wide_characters() -> None:
    lines, left_out = text.table([["a", "b", "c"], ["日本", "e\u0301", "x" * 99]], 12, keeps=2)
    assert (lines, left_out) == (["a     b", "日本  e\u0301"], 1)


COMPLETE = """
source {rc}
complete -p genesis-flow genesis-migrate >/dev/null || exit 1
COMP_WORDS=(genesis-flow sh) COMP_CWORD=1
_genesis_flow_completion genesis-flow
echo "${{COMPREPLY[@]}}"
COMP_WORDS=(genesis-flow db '') COMP_CWORD=2 COMPREPLY=()
_genesis_flow_completion genesis-flow
echo "${{COMPREPLY[@]}}"
"""


def test_completion_is_installed_by_one_command(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("true")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": programs}
    environment.pop("XDG_DATA_HOME", None)
    command = [sys.executable, "-m", "genesis_flow.cli", "completion", "bash", "--install"]
    for _ in range(2):  # a second time changes nothing
        subprocess.run(command, env=environment, check=True, capture_output=True)
    first, line = (tmp_path / ".bashrc").read_text().splitlines()
    assert first == "true"
    assert line.startswith(f"source {tmp_path}/.local/share/genesis-flow/completion.bash")
    script = COMPLETE.format(rc=tmp_path / ".bashrc")
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["show", "backup restore start status stop"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_for_other_shells_names_both_programs(shell: str, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "ZDOTDIR": "", "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    done = CliRunner(env=home).invoke(cli, ["completion", shell])
    assert f"_GENESIS_FLOW_COMPLETE={shell}_complete" in done.stdout
    assert f"_GENESIS_MIGRATE_COMPLETE={shell}_complete" in done.stdout
    assert CliRunner(env=home).invoke(cli, ["completion", shell, "--install"]).exit_code == 0
    written = {
        "zsh": ".local/share/genesis-flow/completion.zsh",
        "fish": ".config/fish/completions/genesis-flow.fish",
    }
    assert (tmp_path / written[shell]).read_text() == done.stdout
    assert (tmp_path / ".zshrc").exists() == (shell == "zsh")


def test_a_shell_that_is_not_known(tmp_path: Path) -> None:
    done = CliRunner(env={"SHELL": "/bin/tcsh"}).invoke(cli, ["completion"])
    assert done.exit_code == 2
    assert "bash, zsh, fish" in done.stderr
