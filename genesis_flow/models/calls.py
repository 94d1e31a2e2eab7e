"""The functions of our own: whatever the settings say, they check."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import mask
from genesis_flow.models.policy import Policy

if TYPE_CHECKING:
    from genesis_flow.models.owners import Owner


@dataclass(frozen=True, slots=True)
class Verified:
    """A model whose files are what was logged."""

    name: str
    files: int
    manifest_sum: str
    signed_by: Path | None
    """The public key, if any was asked for."""


def verify(model_uri: str, *, public_keys: Sequence[str | Path] = ()) -> Verified:
    """Compare all files of a model with the sums that were kept of it; an error names what differs.

    Also its signature, if there are ``public_keys`` (or ``model_public_keys`` are set). Nothing is loaded, so
    it is not asked whether the model may run code.
    """
    policy = replace(Policy.current(), code=True)
    if public_keys:
        policy = replace(policy, keys=tuple(Path(key) for key in public_keys))
    place = Path(tempfile.mkdtemp(prefix="genesis_flow_verify_"))
    try:
        folder, owner, signer = _checked(model_uri, policy, place)
        return Verified(owner.words, len(_manifest(folder)), owner.known() or "", signer)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def load(model_uri: str, loader: Callable[..., Any] | None = None, **arguments: Any) -> Any:
    """Load a model as with secure loading switched on.

    The loader is MLflow's function for its flavor, else ``mlflow.pyfunc.load_model``. It gets the private
    copy that was checked.
    """
    import mlflow

    from genesis_flow.models.downloads import checked_already

    folder, *_ = _checked(model_uri, Policy.current(), None)
    with checked_already():
        return (loader or mlflow.pyfunc.load_model)(str(folder), **arguments)


def seal(
    model_uri: str,
    *,
    private_key: str | Path | None = None,
    password: str | None = None,
    replace_changed: bool = False,
) -> Verified:
    """Make the files of a model, as they are now, the ones that are verified: for models without sums.

    With a ``private_key`` they are signed, too. Files that are not what was logged are refused, unless
    ``replace_changed`` says that the change is wanted.
    """
    from genesis_flow.compat.model_files import get_artifact_repository
    from genesis_flow.models import manifest, signing

    place = Path(tempfile.mkdtemp(prefix="genesis_flow_seal_"))
    try:
        folder, owner = _copied(model_uri, place)
        if owner.known() is not None and not replace_changed:
            _verify_sums(folder, owner)
        manifest_sum = manifest.write(folder)
        (folder / manifest.SIGNATURE).unlink(missing_ok=True)
        repository = get_artifact_repository(owner.location())
        if private_key is not None:
            signing.sign(folder, Path(private_key), password)
            repository.log_artifact(str(folder / manifest.SIGNATURE))
        repository.log_artifact(str(folder / manifest.NAME))
        # Last: a model sealed by half has a manifest that the database does not know, and is refused.
        owner.remember(manifest_sum)
        return Verified(owner.words, len(_manifest(folder)), manifest_sum, None)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _checked(model_uri: str, policy: Policy, place: Path | None) -> tuple[Path, Owner, Path | None]:
    """The private copy, what it belongs to, and the key with which it is signed."""
    from genesis_flow.compat.model_files import repository_of
    from genesis_flow.models import downloads
    from genesis_flow.models.inspection import MLMODEL
    from genesis_flow.models.refusal import refused

    repository, path = repository_of(str(model_uri))
    checked: list[tuple[Owner, Path | None]] = []

    def check(got: Path, subject: downloads.Subject) -> None:
        if not subject.inner:
            checked.append((subject.owner, downloads.check_model(got, subject.owner, policy)))

    got = downloads.download(
        repository,
        path,
        None if place is None else str(place),
        check=check,
        fetch=lambda name, target: repository.download_artifacts(name, target),
    )
    if not checked:
        raise refused(f"{mask(str(model_uri))} is not a model: it has no file {MLMODEL!r}.")
    return Path(got), *checked[0]


def _copied(model_uri: str, place: Path) -> tuple[Path, Owner]:
    """A copy of the model as it is, and what it belongs to; a folder alone does not say that."""
    from genesis_flow.compat.model_files import RunsArtifactRepository, client_of, repository_of
    from genesis_flow.models import downloads, owners
    from genesis_flow.models.inspection import MLMODEL

    repository, path = repository_of(str(model_uri))
    with downloads.checked_already():
        subject = downloads.subject_of(repository, path)
        folder = Path(repository.download_artifacts(path, str(place)))
    if (subject is not None and subject.inner) or not (folder / MLMODEL).is_file():
        raise invalid(f"{mask(str(model_uri))} is not a model: it has no file {MLMODEL!r}.")
    if subject is not None:
        return folder, subject.owner
    if isinstance(repository, RunsArtifactRepository):
        run_id, inner = RunsArtifactRepository.parse_runs_uri(f"{repository.artifact_uri}/{path}")
        return folder, owners.RunOwner(client_of(repository), run_id, inner)
    raise invalid(
        f"{mask(str(model_uri))} does not say whose files these are: name the model by models:/ or runs:/."
    )


def _verify_sums(folder: Path, owner: Owner) -> None:
    from genesis_flow.models import downloads

    downloads.check_model(folder, owner, Policy(code=True))


def _manifest(folder: Path) -> Any:
    import json

    from genesis_flow.models import manifest

    return json.loads((folder / manifest.NAME).read_bytes())["files"]
