"""The manifest: the size and SHA-256 of each file of a model, as a file that travels with it."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from genesis_flow.models.refusal import refused

NAME = "genesis_flow_manifest.json"
SIGNATURE = "genesis_flow_signature.json"
FORMAT = 1
# The last one MLflow writes into what it downloads (until 3.17; into local stores, too), and never reads.
LEFT_OUT = frozenset({NAME, SIGNATURE, "registered_model_meta"})

Sums = Mapping[str, str]


def write(folder: Path) -> str:
    """Write the manifest of what is in the folder; its own SHA-256, to be kept elsewhere."""
    files = {
        name: {"sha256": digest, "size": (folder / name).stat().st_size}
        for name, digest in sorted(sums_of(folder).items())
    }
    text = json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n"
    content = text.encode("utf-8", "surrogateescape")
    (folder / NAME).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def sums_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in the folder, by its path with slashes."""
    return {name: _sum_of(folder / name) for name in names_in(folder) if name not in LEFT_OUT}


def names_in(folder: Path) -> Iterator[str]:
    """Files only: a store of artifacts has no others. Folders behind links are not the model's."""
    for parent, _, files in os.walk(folder):
        for file in files:
            path = Path(parent, file)
            if path.is_file():
                yield path.relative_to(folder).as_posix()


def read(content: bytes, trusted_sum: str, model: str) -> Sums:
    """The sums of a manifest that is the one whose own sum was kept."""
    if hashlib.sha256(content).hexdigest() != trusted_sum:
        raise refused(
            f"{NAME} of {model} was changed: its sum is not the one in the database. Do not use these files; "
            "log the model again, or restore its artifacts."
        )
    found = json.loads(content)
    if found.get("format") != FORMAT:
        raise refused(
            f"{NAME} of {model} has the format {found.get('format')!r}: install a newer genesis_flow."
        )
    sums = {name: entry["sha256"] for name, entry in found["files"].items()}
    for name in sums:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise refused(f"{NAME} of {model} names {name!r}, which is no file of a model: seal it again.")
    return sums


def differences(expected: Sums, found: Sums) -> list[str]:
    """In words, by the files' names: what was changed, is missing, was added or renamed."""
    missing = sorted(expected.keys() - found.keys())
    added = sorted(found.keys() - expected.keys())
    words = [
        f"{name!r} was changed" for name in sorted(expected.keys() & found) if expected[name] != found[name]
    ]
    for name in missing:
        new = next((other for other in added if found[other] == expected[name]), None)
        if new is None:
            words.append(f"{name!r} is missing")
        else:
            added.remove(new)
            words.append(f"{name!r} was renamed to {new!r}")
    return words + [f"{name!r} was added" for name in added]


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
