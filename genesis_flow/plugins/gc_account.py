"""The account that ``mlflow gc`` ends with. MLflow names each thing that it deletes, and nothing of none."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import click

_DELETIONS = {
    "_hard_delete_run": "run",
    "_hard_delete_logged_model": "logged model",
    "_hard_delete_experiment": "experiment",
}
_COUNTS = "genesis_flow.plugins.gc_account"


def count_deletions(store: Any) -> None:
    """Under ``mlflow gc`` alone: have what ``store`` deletes counted, and told when the command ends."""
    context = click.get_current_context(silent=True)
    command = context.command if context else None
    if context is None or command is None or command.name != "gc":
        return
    if not getattr(command.callback, "__module__", "").startswith("mlflow."):
        return
    if _COUNTS not in context.meta:
        context.meta[_COUNTS] = Counter[str]()
        context.call_on_close(lambda: click.echo(sentence(context.meta[_COUNTS])))
    for name, kind in _DELETIONS.items():
        setattr(store, name, _counting(getattr(store, name), context.meta[_COUNTS], kind))


def _counting(delete: Callable[[str], None], counts: Counter[str], kind: str) -> Callable[[str], None]:
    def counted(what: str) -> None:
        delete(what)
        counts[kind] += 1

    return counted


def sentence(counts: Counter[str]) -> str:
    parts = (f"{counts[kind]:,} {kind}{'' if counts[kind] == 1 else 's'}" for kind in _DELETIONS.values())
    return f"Deleted for good: {', '.join(parts)}."
