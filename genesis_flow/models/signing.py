"""Signatures of OpenSSF's model-signing, with keys that lie in files: no network is asked.

The signature covers the manifest and all files that it names, so that ``model_signing verify key`` of that
project can check it without genesis_flow.
"""

from pathlib import Path
from typing import Any

from genesis_flow.core.errors import invalid
from genesis_flow.models.manifest import LEFT_OUT, NAME, SIGNATURE
from genesis_flow.models.refusal import refused

# In the order in which they are written into the signature.
IGNORED = tuple(sorted(LEFT_OUT - {NAME}))


def sign(folder: Path, private_key: Path, password: str | None = None) -> None:
    """Write the signature of what is in the folder, its manifest included."""
    signing, hashing = _library("signing"), _library("hashing")
    if not private_key.is_file():
        raise invalid(
            f"There is no private key {str(private_key)!r}: give the file of an elliptic curve key."
        )
    try:
        # It is declared as text there, and handed on to what wants bytes.
        secret = password.encode() if password else None
        config = signing.Config().use_elliptic_key_signer(private_key=private_key, password=secret)
        config.set_hashing_config(_hashed(hashing))
    except (ValueError, TypeError) as error:
        raise invalid(
            f"The private key {str(private_key)!r} cannot be read: it has to be of an elliptic curve, "
            "in PEM, and its password the right one."
        ) from error
    config.sign(folder, folder / SIGNATURE)


def verify(folder: Path, keys: tuple[Path, ...], model: str) -> Path:
    """The key of whom signed it; refuse what none of the keys signed."""
    verifying, hashing = _library("verifying"), _library("hashing")
    if missing := next((key for key in keys if not key.is_file()), None):
        raise invalid(f"There is no public key {str(missing)!r}: correct model_public_keys.")
    if not (folder / SIGNATURE).is_file():
        raise refused(f"{model} is not signed: `genesis-flow models seal --key FILE {model}` signs it.")
    causes = []
    for key in keys:
        try:
            config = verifying.Config().use_elliptic_key_verifier(public_key=key)
            config.set_hashing_config(_hashed(hashing)).verify(folder, folder / SIGNATURE)
        except Exception as error:  # noqa: BLE001 - of any kind, by what the file holds; told below
            causes.append(f"{key.name}: {error or type(error).__name__}")
        else:
            return key
    raise refused(f"The signature of {model} is not of one of the trusted keys ({'; '.join(causes)}).")


def _hashed(hashing: Any) -> Any:
    return hashing.Config().set_ignored_paths(paths=IGNORED, ignore_git_paths=False)


def _library(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{module}")
    except ImportError as error:
        raise invalid("Signatures need model-signing: install genesis-flow[signing].") from error
