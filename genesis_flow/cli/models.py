"""``genesis-flow models``: manifests and signatures of models."""

import json
import os
from pathlib import Path

import click

PASSWORD = "GENESIS_FLOW_MODEL_KEY_PASSWORD"


@click.group(context_settings={"max_content_width": 100})
def models() -> None:
    """Verify that models are what was logged; seal and sign them.

    MODEL is a URI of MLflow: models:/m-1f2e..., models:/name/3, models:/name@alias or runs:/ID/name.
    """


_MODEL = click.argument("model", metavar="MODEL")
_URI = click.option("--uri", metavar="URI", help="The store, if not from MLFLOW_TRACKING_URI or mlflow.conf.")


@models.command()
@_MODEL
@_URI
@click.option(
    "--key",
    "keys",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A public key: the model must be signed with one of them. Else model_public_keys of mlflow.conf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(model: str, uri: str | None, keys: tuple[Path, ...], as_json: bool) -> None:
    """Compare all files of MODEL with the sums that were kept when it was logged.

    A file that was changed, is missing, was added or renamed is named, and the exit code is 1. The files are
    downloaded and read, and nothing of them is loaded.
    """
    from genesis_flow import models as checks

    _use(uri)
    found = checks.verify(model, public_keys=keys)
    if as_json:
        signer = str(found.signed_by) if found.signed_by else None
        click.echo(
            json.dumps(
                {
                    "model": found.name,
                    "files": found.files,
                    "manifest_sha256": found.manifest_sum,
                    "signed_by": signer,
                }
            )
        )
        return
    signed = f", signed with the key of {found.signed_by}" if found.signed_by else ""
    click.echo(f"{found.name} is what was logged: {found.files} files{signed}.")


@models.command()
@_MODEL
@_URI
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"Sign it, too, with this private key, whose password {PASSWORD} gives if it has one.",
)
@click.option("--replace", is_flag=True, help="The files were changed on purpose since the model was logged.")
def seal(model: str, uri: str | None, key: Path | None, replace: bool) -> None:
    """Make the files of MODEL, as they are now, the ones that are verified.

    For models that were logged without sums, and those that were changed on purpose, as by set_signature().
    Look at the files first: from now on they pass for what was logged.
    """
    from genesis_flow import models as checks

    _use(uri)
    password = os.environ.get(PASSWORD) or None
    found = checks.seal(model, private_key=key, password=password, replace_changed=replace)
    signed = f" and signed with {key}" if key else ""
    click.echo(f"{found.name} is sealed{signed}: {found.files} files.")


def _use(uri: str | None) -> None:
    """MLflow's own calls are to go to this store; a server's URI is one as well."""
    import mlflow

    from genesis_flow.core.settings import ENV_TRACKING_URI, Settings

    if uri is None and not os.environ.get(ENV_TRACKING_URI):
        settings = Settings.resolve()
        uri = settings.credential_free_uri.reveal()
        os.environ.update({name: value.reveal() for name, value in settings.credential_environment().items()})
    if uri is not None:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
