"""``genesis-flow gateway``: what the AI gateway needs besides its pages."""

from collections.abc import Iterator
from typing import Any

import click


@click.group(context_settings={"max_content_width": 100})
def gateway() -> None:
    """Encrypt the AI gateway's secrets anew; export what it has."""


@gateway.command("rotate-key")
@click.option("--uri", metavar="URI", help="The store, if not from MLFLOW_TRACKING_URI or mlflow.conf.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rotate_key(uri: str | None, yes: bool) -> None:
    """Encrypt the keys of all secrets with another passphrase.

    Both passphrases come from the environment: MLFLOW_CRYPTO_KEK_PASSPHRASE, which the secrets are encrypted
    with (and MLFLOW_CRYPTO_KEK_VERSION, 1 unless set), and GENESIS_FLOW_NEXT_KEK_PASSPHRASE. It is what
    `mlflow crypto rotate-kek` does for SQL databases. Killed at any point it can be run again.

    \b
    So that no call fails meanwhile:
      1. restart all servers with both variables: they then read secrets of either
      2. genesis-flow gateway rotate-key
      3. restart them with the new passphrase and the next version in the place of the old ones
      4. with the variables of step 2, once more: for secrets that were made in between
    """
    from genesis_flow.compat import crypto
    from genesis_flow.core.settings import Settings
    from genesis_flow.migrate.config import MigrateConfig, opened
    from genesis_flow.migrate.files import folder

    old, new = crypto.keys_to_rotate()
    settings = Settings.resolve(uri)
    question = f"Encrypt the gateway's secrets in {settings.store_uri} with version {new.kek_version}?"
    if not yes:
        click.confirm(question, abort=True)
    with opened(MigrateConfig(settings=settings, script_location=folder()), creates=False) as target:
        secrets = target.db[settings.prefix + "gateway_secrets"]
        done = sum(_rotate(secrets, old, new))
        left = secrets.count_documents({"kek_version": {"$nin": [new.kek_version]}})
    click.echo(f"{done} secrets are encrypted with version {new.kek_version} now.")
    if left:
        click.echo(f"{left} have another version than {old.kek_version}, and stay as they are.", err=True)
    click.echo(
        f"Give all servers the new passphrase as {crypto.PASSPHRASE}, "
        f"with {new.kek_version} as {crypto.VERSION}."
    )


def _rotate(secrets: Any, old: Any, new: Any) -> Iterator[int]:
    """One for each secret that has the new key now; one that others change meanwhile is looked at again."""
    from genesis_flow.compat import crypto

    while (secret := secrets.find_one({"kek_version": old.kek_version})) is not None:
        seen = {field: secret[field] for field in ("_id", "kek_version", "wrapped_dek")}
        wrapped = {"wrapped_dek": crypto.rewrapped(secret, old, new), "kek_version": new.kek_version}
        yield secrets.update_one(seen, {"$set": wrapped}).modified_count


@gateway.command("export-secrets")
@click.argument("database", metavar="DATABASE")
@click.option("--uri", metavar="URI", help="The store, if not from MLFLOW_TRACKING_URI or mlflow.conf.")
def export_secrets(database: str, uri: str | None) -> None:
    """Copy the secrets into an SQL database of MLflow, encrypted as they are.

    DATABASE is an SQLAlchemy URI such as sqlite:////home/me/mlflow.db; `mlflow db upgrade DATABASE` makes its
    tables. MLflow reads the secrets there with the passphrase and the version that servers have here: no
    passphrase is needed for the copy, and nothing is decrypted. Secrets keep ids and names, which
    the encryption is bound to. Those that are there already get the values that they have here. All come, or
    none: one whose name another secret has there is refused.
    """
    _export(database, uri, ("gateway_secrets",))


@gateway.command("export")
@click.argument("database", metavar="DATABASE")
@click.option("--uri", metavar="URI", help="The store, if not from MLFLOW_TRACKING_URI or mlflow.conf.")
def export(database: str, uri: str | None) -> None:
    """Copy secrets, models and endpoints into an SQL database of MLflow.

    As export-secrets does with secrets, and with them the models that use them and the endpoints with their
    models and tags: calls of an endpoint go on there. All keep their ids and names, and all come, or none.
    Calls are traced in the experiment of the same name; where that has none, switch on usage tracking of the
    endpoint there, and MLflow makes it. Budgets, guardrails and traces stay here.
    """
    _export(database, uri, ("gateway_secrets", "gateway_models", "gateway_endpoints"))


def _export(database: str, uri: str | None, collections: tuple[str, ...]) -> None:
    from genesis_flow.core.settings import Settings
    from genesis_flow.importers.sql import way_back
    from genesis_flow.migrate.config import MigrateConfig, opened
    from genesis_flow.migrate.files import folder

    tables = (way_back.SECRETS, way_back.MODELS, way_back.ENDPOINTS)
    settings = Settings.resolve(uri)
    with opened(MigrateConfig(settings=settings, script_location=folder()), creates=False) as target:
        # What names others is read first: what they name was there before.
        found = {
            table: target.db[settings.prefix + name].find({}).sort("_id", 1).to_list()
            for table, name in reversed(list(zip(tables, collections, strict=False)))
        }
        numbers = [each.get("experiment_id") for each in found.get(way_back.ENDPOINTS, [])]
        named = target.db[settings.prefix + "experiments"].find({"_id": {"$in": numbers}}, {"name": 1})
        experiments = {each["_id"]: each["name"] for each in named}
    done = way_back.put(database, {table: found[table] for table in tables if table in found}, experiments)
    for counts, what in zip(done.values(), ("secrets", "models", "endpoints"), strict=False):
        changed = f"{counts.changed} were there and have the values of here."
        click.echo(f"{counts.made} {what} are new there, {changed}")
        if counts.untraced:
            click.echo(
                f"Calls of {counts.untraced} endpoints are not traced there: there is no experiment of the "
                "name of theirs. Switch on their usage tracking there.",
                err=True,
            )
    versions = sorted({each["kek_version"] for each in found[way_back.SECRETS]})
    if len(versions) > 1:
        click.echo(
            f"They have the versions {', '.join(map(str, versions))}, of which MLflow can read one: run "
            "`genesis-flow gateway rotate-key` to its end, and this again.",
            err=True,
        )
