"""The pages of the documentation and the blocks of code in them.

Every block of bash and python is run, in the order of its page (see ``session.py``), unless a comment on
the line before it says otherwise:

    <!-- not run: REASON -->     nobody runs it, and the page should not hide that
    <!-- run by: FILE -->        that test, or .ci/run, does
    <!-- command: NAME -->       .ci/run reads it with tools/readme_command.py
    <!-- file: NAME -->          it is written to that file, which a later block uses
    <!-- exit code: N -->        it ends with that code
    <!-- output -->              for text: the block before it printed this; … stands for anything
    <!-- provoked: NAME -->      for text: the function of that name in ``provoked.py`` makes it appear
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

MARKS = ("not run", "run by", "command", "file", "exit code", "output", "provoked")
CODE = ("bash", "python")
# Nothing that could be run.
DATA = ("text", "mermaid", "json", "ini", "yaml")

_FENCED = re.compile(
    r"^(?:[ ]*<!--[ ]*(?P<mark>[^>]*?)[ ]*-->\n\s*)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    code: str
    mark: str  # one of MARKS, or empty
    argument: str

    @property
    def runs(self) -> bool:
        return self.language in CODE and self.mark in ("", "file", "exit code")

    @property
    def exit_code(self) -> int:
        return int(self.argument) if self.mark == "exit code" else 0


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[Block]:
    found = []
    for match in _FENCED.finditer(text):
        mark, _, argument = (match["mark"] or "").partition(":")
        line = text.count("\n", 0, match.start("indent")) + 1
        code = textwrap.dedent(match["code"])
        found.append(Block(line, match["language"], code, mark.strip(), argument.strip()))
    return found


def prose(text: str) -> str:
    return _FENCED.sub("", text)
