"""Draw the pictures that are no screenshots: python tools/drawings.py [FOLDER]

`architecture.svg`, and `quickstart.svg`: what `genesis-flow quickstart` prints in a terminal. Written to
docs/images unless another folder is named.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_SANS = "ui-sans-serif, system-ui, 'DejaVu Sans', sans-serif"
_MONO = "ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', monospace"
_INK, _FAINT, _TEAL, _PALE = "#1f2a33", "#5f6f7a", "#0b7285", "#e6f4f6"

# A terminal's line: its height, the width of a letter, the space around all of them.
_LINE, _LETTER, _MARGIN = 19, 8.0, 22
_BAR = 34

_OF_AREAS = (
    "each of MLflow's methods, asynchronous, written once:",
    "runs · metrics · traces · models · prompts · evaluation · …",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "images")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawing in {"architecture": architecture(), "quickstart": quickstart()}.items():
        (folder / f"{name}.svg").write_text(drawing, encoding="utf-8")
        print(folder / f"{name}.svg")
    return 0


@dataclass(frozen=True)
class Box:
    """A rectangle with a title and lines below it."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    strong: bool = False

    def drawn(self) -> str:
        fill, edge, ink = (_TEAL, _TEAL, "white") if self.strong else ("white", "#b9c6cc", _INK)
        top = self.y + self.height / 2 - 9.5 * len(self.lines) + 5
        middle = self.x + self.width / 2
        parts = [
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="8" '
            f'fill="{fill}" stroke="{edge}" stroke-width="1.5"/>',
            _text(middle, top, self.title, ink, size=15, bold=True),
        ]
        faint = "#d7eef2" if self.strong else _FAINT
        parts += [
            _text(middle, top + 20 + 18 * row, line, faint, size=13) for row, line in enumerate(self.lines)
        ]
        return "\n".join(parts)


def _text(x: float, y: float, text: str, colour: str, *, size: int, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-family="{_SANS}" font-size="{size}"'
        f'{weight} fill="{colour}">{escape(text)}</text>'
    )


def _arrow(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{_FAINT}" stroke-width="1.5" marker-end="url(#head)"/>'


def architecture() -> str:
    """Who talks to what: programs above, genesis_flow in their processes, the database and files below."""
    boxes = (
        Box(30, 30, 190, 74, "Browsers", ("and clients of HTTP",)),
        Box(240, 30, 190, 74, "Trainings", ("scripts, notebooks,", "many processes")),
        Box(450, 30, 190, 74, "Commands", ("mlflow, genesis-flow,", "genesis-migrate")),
        Box(660, 30, 190, 74, "Web applications", ("FastAPI and others,", "await")),
        Box(30, 146, 190, 62, "genesis-flow server", ("MLflow's own, with health",)),
        Box(50, 262, 330, 66, "Blocking stores", ("generated, for MLflow",)),
        Box(400, 262, 190, 66, "Asynchronous stores", ("genesis_flow.aio",)),
        Box(610, 262, 220, 66, "Importers, migrations", ("mlruns and SQL; the schema",)),
        Box(50, 350, 540, 84, "Areas", _OF_AREAS, strong=True),
        Box(610, 350, 220, 84, "Artifacts", ("azure:// with resuming,", "and all that MLflow knows")),
        Box(50, 510, 255, 78, "Embedded MongoDB", ("genesis:///directory,", "started by its first user")),
        Box(335, 510, 255, 78, "MongoDB", ("mongodb://host/database,", "a replica set, a service")),
        Box(610, 510, 220, 78, "Files", ("on a disk, in a bucket",)),
    )
    frame = (
        f'<rect x="30" y="242" width="820" height="212" rx="12" fill="{_PALE}" stroke="{_TEAL}" '
        'stroke-dasharray="5 4"/>'
    )
    arrows = (
        _arrow(125, 104, 125, 142),
        _arrow(125, 208, 125, 258),
        _arrow(335, 104, 260, 258),
        _arrow(545, 104, 345, 258),
        _arrow(755, 104, 495, 258),
        _arrow(177, 434, 177, 506),
        _arrow(462, 434, 462, 506),
        _arrow(720, 434, 720, 506),
    )
    label = _text(320, 480, "genesis_flow, in each process", _TEAL, size=13)
    return _svg(880, 620, [frame, label, *arrows, *(box.drawn() for box in boxes)])


def quickstart() -> str:
    """A terminal in which a newcomer has typed the README's command."""
    with tempfile.TemporaryDirectory(prefix="genesis-flow-drawing-") as folder:
        command = [sys.executable, "-m", "genesis_flow.cli"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
        done = subprocess.run(
            [*command, "quickstart"],
            cwd=folder,
            env=environment,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
        subprocess.run([*command, "db", "stop", "--force"], cwd=folder, env=environment, check=True)
        text = done.stdout.replace(os.path.realpath(folder), "/home/me")
    return terminal("genesis-flow quickstart", text.splitlines())


def terminal(command: str, lines: Iterable[str]) -> str:
    """A window with a command and what it printed; lines that begin at the left are headings."""
    shown = [*lines]
    width = 2 * _MARGIN + _LETTER * max(map(len, shown))
    drawn = [
        f'<rect width="{width:g}" height="100%" rx="10" fill="#17212b"/>',
        *(
            f'<circle cx="{_MARGIN + 20 * number}" cy="{_BAR / 2:g}" r="6" fill="{colour}"/>'
            for number, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
        _typed(0, f"$ {command}", "#7fdbca", bold=True),
    ]
    for row, line in enumerate(shown, start=1):
        if line:
            heading = not line.startswith(" ")
            drawn.append(_typed(row, line, "#ffffff" if heading else "#c8d3dc", bold=heading))
    return _svg(round(width), _BAR + _MARGIN + _LINE * (len(shown) + 1), drawn)


def _typed(row: int, line: str, colour: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    # Letters as wide as the window expects, whichever font there is.
    return (
        f'<text x="{_MARGIN}" y="{_BAR + _LINE * (row + 1) - 4}" xml:space="preserve" font-family="{_MONO}" '
        f'font-size="13" textLength="{_LETTER * len(line):g}" lengthAdjust="spacing"{weight} '
        f'fill="{colour}">{escape(line)}</text>'
    )


def _svg(width: int, height: int, parts: Iterable[str]) -> str:
    head = (
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L10 5L0 10z" fill="{_FAINT}"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join([head, *parts]) + "\n</svg>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
