"""Print a shell command that README.md gives its readers, so that CI runs what they run.

    python tools/readme_command.py quickstart
    python tools/readme_command.py tests

A command is the block of shell code that follows a comment ``<!-- command: NAME -->``.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
_COMMAND = re.compile(r"<!-- command: (?P<name>\w+) -->\s*```(?:bash|shell)\n(?P<code>.*?)```", re.DOTALL)


def commands(text: str) -> dict[str, str]:
    """The marked commands by name."""
    return {match["name"]: match["code"].strip() for match in _COMMAND.finditer(text)}


def main(arguments: list[str]) -> int:
    found = commands(README.read_text(encoding="utf-8"))
    if len(arguments) != 1 or arguments[0] not in found:
        known = ", ".join(found) or "there are none"
        print(f"Name one of the commands in README.md: {known}", file=sys.stderr)
        return 2
    print(found[arguments[0]])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
