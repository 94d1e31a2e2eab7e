"""``genesis-flow completion``: what shells need to complete our commands by the tab key."""

import os
import shlex
from pathlib import Path

import click
from click.shell_completion import get_completion_class

_PROGRAMS = ("genesis-flow", "genesis-migrate")
_SHELLS = ("bash", "zsh", "fish")
_MARK = "# genesis-flow completion"
# In a shell that has not loaded its completion, a script that is sourced has to.
_ZSH_BEGIN = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
@click.option("--install", is_flag=True, help="Write it to where the shell finds it, for shells to come.")
def completion(shell: str | None, install: bool) -> None:
    """Complete commands and options by the tab key.

    Prints the script for SHELL (the one in $SHELL unless given), for genesis-flow and genesis-migrate. With
    --install it is kept below ~/.local/share/genesis-flow, and one line in ~/.bashrc or ~/.zshrc loads it;
    fish needs no such line.

    \b
    Examples:
      genesis-flow completion bash --install
      source <(genesis-flow completion bash)
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in _SHELLS:
        raise click.UsageError(f"Name your shell: one of {', '.join(_SHELLS)}.")
    if not install:
        click.echo(_script(shell), nl=False)
        return
    click.echo(f"{_install(shell)} New shells complete genesis-flow and genesis-migrate.")


def _script(shell: str) -> str:
    kind = get_completion_class(shell)
    assert kind is not None
    parts = [_ZSH_BEGIN] if shell == "zsh" else []
    for program in _PROGRAMS:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        # Not the class's source(): it starts a bash, to complain of one that is too old.
        maker = kind(click.Group(program), {}, program, variable)
        parts.append(f"{(maker.source_template % maker.source_vars()).strip()}\n")
    return "\n".join(parts)


def _install(shell: str) -> str:
    """Write the script and see that it is loaded; says what was done."""
    home = Path.home()
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        # fish loads a file when the command of its name is first completed.
        files = [config / "fish" / "completions" / f"{program}.fish" for program in _PROGRAMS]
        for file in files:
            _write(file, _script(shell))
        return f"Wrote {' and '.join(map(str, files))}."
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    file = data / "genesis-flow" / f"completion.{shell}"
    _write(file, _script(shell))
    rc = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc" if shell == "zsh" else home / ".bashrc"
    line = f"source {shlex.quote(str(file))}  {_MARK}"
    existing = rc.read_text() if rc.exists() else ""
    if line in existing.splitlines():
        return f"Wrote {file}, which {rc} loads already."
    with rc.open("a") as opened:
        opened.write(("" if existing.endswith("\n") or not existing else "\n") + line + "\n")
    return f"Wrote {file} and added a line to {rc} that loads it."


def _write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
