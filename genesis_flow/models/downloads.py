"""What MLflow downloads of models is verified, in a private folder, before anybody gets it.

What was checked is what is handed out: a folder of this process alone, also where MLflow would return the
folder of the store itself, which others could change between the check and the load.
"""

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from genesis_flow.compat.model_files import (
    LocalArtifactRepository,
    ModelsArtifactRepository,
    RunsArtifactRepository,
    client_of,
    logged_model_id,
)
from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import mask
from genesis_flow.models import manifest, owners, signing
from genesis_flow.models.inspection import MLMODEL, Inspection
from genesis_flow.models.owners import Owner
from genesis_flow.models.policy import Policy
from genesis_flow.models.refusal import refused

PREFIX = "genesis_flow_model_"
# MLflow sets it in the process that finds out what a model needs that is being saved, which no store has yet.
SAVING = "_MLFLOW_IN_CAPTURE_MODULE_PROCESS"

_inside: ContextVar[bool] = ContextVar("genesis_flow_model_download", default=False)
_kept: list[tuple[int, Path]] = []
_owners: dict[str, Owner] = {}
_REMEMBERED = 1024

Download = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is downloaded of which model."""

    owner: Owner
    inner: str
    """The path in the model; empty for all of it."""


@contextlib.contextmanager
def checked_already() -> Iterator[None]:
    """Around downloads whose outcome is checked by the caller, or is a folder that was."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def guarded(original: Download, repository: Any, path: str | None, target: str | None, *more: Any) -> str:
    """In the place of a repository's ``download_artifacts``."""
    if _inside.get() or os.environ.get(SAVING, "").lower() in ("true", "1"):
        return original(repository, path, target, *more)
    policy = Policy.current()
    if not policy.secure:
        return original(repository, path, target, *more)
    if _is_one_file(repository, path, target) and _known_owner(repository, path) is None:
        return original(repository, path, target, *more)
    return download(
        repository,
        path,
        target,
        check=lambda got, subject: _check(got, subject, policy),
        fetch=lambda name, place: original(repository, name, place, *more),
    )


def download(
    repository: Any,
    path: str | None,
    target: str | None,
    *,
    check: Callable[[Path, Subject], None],
    fetch: Callable[[str | None, str], str],
) -> str:
    """Into a private folder, checked there, and only then put where the caller wants it."""
    with checked_already():
        if target is not None and not Path(target).is_dir():
            raise invalid(f"The folder {target!r}, to download to, does not exist: create it.")
        subject = subject_of(repository, path or "")
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=target))
        is_kept = False
        try:
            got = Path(fetch(path, str(place))).resolve()
            root = place.resolve()
            if not got.is_relative_to(root):
                raise refused(
                    f"{mask(repository.artifact_uri)} was downloaded to {got}, which is not {place}."
                )
            if subject is None and (got / MLMODEL).is_file():
                subject = Subject(_owner_of(got, repository, path or ""), "")
            elif subject is not None and subject.inner:
                _fetch_manifest(path or "", subject.inner, place, fetch)
            if subject is not None:
                check(got, subject)
                if not subject.inner:
                    _remember(repository, path or "", subject.owner)
            if target is not None:
                return str(_put(got, got.relative_to(root), Path(target).resolve()))
            is_kept = True
            _kept.append((os.getpid(), place))
            return str(got)
        finally:
            if not is_kept:
                shutil.rmtree(place, ignore_errors=True)


def subject_of(repository: Any, path: str) -> Subject | None:
    """The model that the repository is of, if it is of one."""
    if isinstance(repository, ModelsArtifactRepository):
        client = client_of(repository)
        if (model_id := logged_model_id(repository)) is not None:
            return Subject(owners.LoggedModelOwner(client, model_id), path)
        name, version = repository.model_name, repository.model_version
        return Subject(owners.of_version(client, name, version), path)
    if isinstance(repository, RunsArtifactRepository):
        client = client_of(repository)
        whole = f"{repository.artifact_uri}/{path}" if path else repository.artifact_uri
        run_id, inner = RunsArtifactRepository.parse_runs_uri(whole)
        if not inner:
            return None
        name, _, rest = inner.partition("/")
        owner = owners.of_run(client, run_id, name)
        return Subject(owner, rest) if owner else None
    known = _known_owner(repository, path)
    return Subject(known, MLMODEL) if known else None


def _check(got: Path, subject: Subject, policy: Policy) -> None:
    if subject.inner:
        _check_part(got, subject.inner, subject.owner)
    else:
        check_model(got, subject.owner, policy)


def _owner_of(folder: Path, repository: Any, path: str) -> Owner:
    """Of a model among the artifacts of a run, or in a folder that nothing tells of but its own files."""
    if isinstance(repository, RunsArtifactRepository):
        run_id, inner = RunsArtifactRepository.parse_runs_uri(f"{repository.artifact_uri}/{path}")
        return owners.RunOwner(client_of(repository), run_id, inner or "")
    owner = owners.said_by(folder, client_of(repository))
    if owner is None:
        raise refused(
            f"{mask(repository.artifact_uri)} holds a model that does not say which one it is: load it by "
            "its name, as models:/... or runs:/..., or log it again."
        )
    return owner


def check_model(folder: Path, owner: Owner, policy: Policy) -> Path | None:
    """All of a model, against what was kept of it; then its signature, and what it would do.

    Returns the key with which it is signed, if keys are asked for.
    """
    sums = _trusted_sums(folder, owner)
    if found := manifest.differences(sums, manifest.sums_of(folder)):
        raise refused(
            f"{owner.words} is not what was logged: {', '.join(found)}. Do not use these files; log it again "
            f"or, if the change is yours, run `genesis-flow models seal --replace {owner.words}`."
        )
    signer = signing.verify(folder, policy.keys, owner.words) if policy.keys else None
    if not policy.code:
        Inspection(folder, owner.words, policy).check()
    return signer


def _check_part(got: Path, inner: str, owner: Owner) -> None:
    """A file or a folder of a model, whose manifest lies beside it under its own name."""
    root = got
    for _ in PurePosixPath(inner).parts:
        root = root.parent
    name = PurePosixPath(inner).as_posix()
    if name in (manifest.NAME, manifest.SIGNATURE):
        return
    sums = _trusted_sums(root, owner)
    if got.is_file():
        expected = {name: sums[name]} if name in sums else {}
        found = {name: manifest.sums_of(root)[name]} if name not in manifest.LEFT_OUT else {}
    else:
        expected = {each: value for each, value in sums.items() if each.startswith(f"{name}/")}
        found = {f"{name}/{each}": value for each, value in manifest.sums_of(got).items()}
    if wrong := manifest.differences(expected, found):
        raise refused(f"{owner.words} is not what was logged: {', '.join(wrong)}. Do not use these files.")


def _trusted_sums(folder: Path, owner: Owner) -> manifest.Sums:
    trusted = owner.known()
    if trusted is None:
        raise refused(
            f"The database has no sum of {owner.words}, so nothing says that its files are what was logged. "
            f"If you trust them as they are, run `genesis-flow models seal {owner.words}`."
        )
    path = folder / manifest.NAME
    if not path.is_file():
        raise refused(f"{manifest.NAME!r} of {owner.words} is missing: do not use these files.")
    return manifest.read(path.read_bytes(), trusted, owner.words)


def _fetch_manifest(path: str, inner: str, place: Path, fetch: Callable[[str | None, str], str]) -> None:
    root = path
    for _ in PurePosixPath(inner).parts:
        root = str(PurePosixPath(root).parent)
    name = manifest.NAME if root in ("", ".") else f"{root}/{manifest.NAME}"
    # Its absence is said where it is looked for, in words that fit both.
    with contextlib.suppress(Exception):
        fetch(name, str(place))


def _is_one_file(repository: Any, path: str | None, target: str | None) -> bool:
    """A file of a local store, which is returned as it is, and is no model."""
    if target is not None or not isinstance(repository, LocalArtifactRepository) or not path:
        return False
    return Path(repository.artifact_dir, path).is_file()


def _remember(repository: Any, path: str, owner: Owner) -> None:
    """Some flavors read ``MLmodel`` once more from where the model was: that is then checked, too."""
    for each in (repository, getattr(repository, "repo", None)):
        if each is not None:
            _owners[_location(each, path)] = owner
    while len(_owners) > _REMEMBERED:
        _owners.pop(next(iter(_owners)), None)


def _known_owner(repository: Any, path: str | None) -> Owner | None:
    if not path or PurePosixPath(path).name != MLMODEL:
        return None
    return _owners.get(_location(repository, str(PurePosixPath(path).parent)))


def _location(repository: Any, path: str) -> str:
    if isinstance(repository, LocalArtifactRepository):
        return str(Path(repository.artifact_dir, path).resolve())
    return str(PurePosixPath(repository.artifact_uri, path))


def _put(got: Path, inner: Path, target: Path) -> Path:
    place = target / inner
    if got.is_dir() and place.is_dir():
        names = set(manifest.names_in(got)) | manifest.LEFT_OUT
        for name in manifest.names_in(place):
            if name not in names and not name.startswith(PREFIX):
                raise invalid(
                    f"{place} holds {name!r} already, which the model has not: name an empty folder."
                )
    if got.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        got.replace(place)
        return place
    place.mkdir(parents=True, exist_ok=True)
    for name in sorted(manifest.names_in(got)):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (got / name).replace(place / name)
    return place


@atexit.register
def _clean() -> None:
    """Of this process alone: a copy of it has the list, too."""
    for process, place in _kept:
        if process == os.getpid():
            shutil.rmtree(place, ignore_errors=True)
