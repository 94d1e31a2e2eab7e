"""How the commands fail: one line on stderr, exit code 1, no password; a traceback only when asked for."""

import sys
import traceback
from typing import Any

import click

from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.redact import mask


class Commands(click.Group):
    """A group whose ``--debug`` flag says whether an error shows its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click has its own words and exit codes for these
        except Exception as error:  # noqa: BLE001 - the edge of the program; nothing above could handle it
            if ctx.params.get("debug"):
                click.echo(mask(traceback.format_exc()), err=True, nl=False)
            else:
                click.echo(f"Error: {describe(error)}", err=True)
            ctx.exit(1)


def describe(error: Exception) -> str:
    """One line for ``error``; what was not foreseen also names its type and how to see more."""
    text = " ".join(mask(str(error)).split())
    if _is_foreseen(error):
        return text
    name = type(error).__name__
    return f"{f'{name}: {text}' if text else name} (genesis-flow --debug ... shows where)"


def _is_foreseen(error: Exception) -> bool:
    """Whether the message was written for the user; asked without importing MLflow, which takes a second."""
    mlflow_errors = sys.modules.get("mlflow.exceptions")
    written_for_users: tuple[type[Exception], ...] = (GenesisFlowError, OSError)
    if mlflow_errors is not None:
        written_for_users += (mlflow_errors.MlflowException,)
    return isinstance(error, written_for_users)
