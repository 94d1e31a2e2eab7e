"""``genesis-flow gateway``: what the AI gateway needs besides its pages."""

from collections.abc import Iterator
from typing import Any

import click


@click.group(context_settings={"max_content_width": 100})
def gateway() -> None:
    """Give the AI gateway's secrets another passphrase."""


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

    while (found := secrets.find_one({"kek_version": old.kek_version})) is not None:
        seen = {field: found[field] for field in ("_id", "kek_version", "wrapped_dek")}
        wrapped = {"wrapped_dek": crypto.rewrapped(found, old, new), "kek_version": new.kek_version}
        yield secrets.update_one(seen, {"$set": wrapped}).modified_count
