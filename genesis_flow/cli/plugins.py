"""``genesis-flow plugins``: which there are, and why one cannot be used."""

import json

import click

from genesis_flow.plugins.base import PluginState
from genesis_flow.plugins.builtin import ORIGIN
from genesis_flow.plugins.manager import PluginInfo, get_plugin_manager


@click.group(context_settings={"max_content_width": 100})
def plugins() -> None:
    """List the plugins for frameworks, and try one out."""


@plugins.command("list")
@click.option("--all", "everything", is_flag=True, help="Show missing frameworks too.")
@click.option("--json", "as_json", is_flag=True, help="All that is known of each, as JSON.")
def list_(everything: bool, as_json: bool) -> None:
    """List plugins: name, state, version, and why one is unavailable.

    Nothing of a plugin is run for this. Plugins are found by the entry points of installed packages, and in
    the folders of plugin_paths (mlflow.conf, section [plugins]).
    """
    found = get_plugin_manager().list_plugins()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        shown = [each for each in found if everything or not _is_only_known(each)]
        for line in _table(shown):
            click.echo(line)
        if left := len(found) - len(shown):
            click.echo(
                f"{left} more of MLflow's frameworks are not installed: genesis-flow plugins list --all"
            )


@plugins.command()
@click.argument("name")
def check(name: str) -> None:
    """Try the plugin NAME out: exit code 1, and why, if it cannot be enabled.

    It is loaded in a process of its own, which is ended after import_timeout seconds (mlflow.conf, section
    [plugins]; 60 unless set).
    """
    why_not = get_plugin_manager().why_unavailable(name)
    if why_not:
        raise click.ClickException(f"The plugin {name!r} cannot be enabled: {_plain(why_not)}.")
    click.echo(f"The plugin {name!r} can be enabled.")


def _is_only_known(plugin: PluginInfo) -> bool:
    """Whether it is a framework of MLflow's list that is not here."""
    return plugin["state"] == PluginState.UNAVAILABLE and plugin["origin"].startswith(ORIGIN)


def _table(found: list[PluginInfo]) -> list[str]:
    rows = [("NAME", "STATE", "VERSION", "FROM", "")]
    for each in found:
        said = each["why_unavailable"] or "; ".join(each["notes"]) or each["description"]
        rows.append((each["name"], each["state"], each["version"] or "-", each["origin"], said))
    plain = [tuple(map(_plain, row)) for row in rows]
    widths = [max(len(row[column]) for row in plain) for column in range(4)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in plain
    ]


def _plain(text: str) -> str:
    """Without what moves a terminal's cursor: texts of plugins are anybody's."""
    return "".join(each if each.isprintable() else " " for each in text)
