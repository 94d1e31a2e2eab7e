"""MLflow's envelope around the gateway's secrets: a key for each, wrapped by the one from the passphrase.

MLflow derives the key from the passphrase anew for every secret, a fifth of a second each time; here it is
derived once for each passphrase and version.
"""

import functools
import json
import os
import threading
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils.crypto import (
    CRYPTO_KEK_PASSPHRASE_ENV_VAR as PASSPHRASE,
    CRYPTO_KEK_VERSION_ENV_VAR as VERSION,
    KEKManager,
    _decrypt_secret,
    _encrypt_secret,
    _mask_secret_value,
    rotate_secret_encryption,
)

__all__ = [
    "PASSPHRASE",
    "VERSION",
    "Envelope",
    "decrypted",
    "encrypted",
    "is_derived",
    "keys_to_rotate",
    "masked",
    "rewrapped",
    "tells_everybody",
]

Envelope = dict[str, Any]
"""The fields ``value``, ``wrapped_dek`` and ``kek_version``."""

NEXT_PASSPHRASE = "GENESIS_FLOW_NEXT_KEK_PASSPHRASE"
"""The passphrase of the next version: secrets that have it already are read with it."""

_deriving = threading.Lock()
_derived: set[tuple[str, int]] = set()


def key_version() -> int:
    """The number of the key that the environment names."""
    text = os.environ.get(VERSION, "1")
    try:
        return int(text)
    except ValueError as error:
        raise MlflowException(
            f"{VERSION} must be a whole number, not {text!r:.50}.", INVALID_PARAMETER_VALUE
        ) from error


def is_derived() -> bool:
    """Whether the key of the environment is at hand, so that nobody has to wait for it."""
    return (os.environ.get(PASSPHRASE, ""), key_version()) in _derived


def _key() -> KEKManager:
    return key_of(os.environ.get(PASSPHRASE, ""), key_version())


def key_of(passphrase: str, version: int) -> KEKManager:
    """The key of a passphrase; an empty one is the default that everybody knows, of which MLflow warns."""
    with _deriving:
        key = _derive(passphrase, version)
        _derived.add((passphrase, version))
    return key


@functools.lru_cache(maxsize=4)
def _derive(passphrase: str, version: int) -> KEKManager:
    return KEKManager(passphrase, version)


def encrypted(value: dict[str, Any], secret_id: str, name: str) -> Envelope:
    made = _encrypt_secret(json.dumps(value), _key(), secret_id, name)
    return {
        "value": made.encrypted_value,
        "wrapped_dek": made.wrapped_dek,
        "kek_version": made.kek_version,
    }


def masked(value: dict[str, Any]) -> dict[str, str]:
    """What may be shown of a secret."""
    shown: dict[str, str] = _mask_secret_value(value)
    return shown


def decrypted(document: dict[str, Any]) -> dict[str, Any]:
    """The values of a stored secret; refused with its name, and with the variables to look at."""
    key = _key_for(document["kek_version"])
    try:
        value: Any = _decrypt_secret(
            document["value"], document["wrapped_dek"], key, document["_id"], document["name"]
        )
    except MlflowException as error:
        raise MlflowException(
            f"The gateway's secret {document['name']!r} cannot be decrypted with the passphrase in "
            f"{PASSPHRASE}{' (it is not set)' if key.using_default_passphrase else ''} as version "
            f"{key.kek_version} ({VERSION}); it was encrypted with version {document['kek_version']}. Set "
            "both to what it was encrypted with, or give the secret a new value.",
            INVALID_PARAMETER_VALUE,
        ) from error
    values: dict[str, Any] = value
    return values


def _key_for(version: int) -> KEKManager:
    """The key of the environment; the next one for what is encrypted with that, while keys are rotated."""
    following = os.environ.get(NEXT_PASSPHRASE)
    if following and version == key_version() + 1:
        return key_of(following, version)
    return _key()


def keys_to_rotate() -> tuple[KEKManager, KEKManager]:
    """The key that the secrets have, and the next one."""
    following = os.environ.get(NEXT_PASSPHRASE)
    if not following:
        raise MlflowException(
            f"Set {NEXT_PASSPHRASE} to the new passphrase, and {PASSPHRASE} to the old one.",
            INVALID_PARAMETER_VALUE,
        )
    return _key(), key_of(following, key_version() + 1)


def tells_everybody() -> bool:
    """Whether secrets are encrypted with the passphrase that is in MLflow's source."""
    return not os.environ.get(PASSPHRASE)


def rewrapped(document: dict[str, Any], old: KEKManager, new: KEKManager) -> bytes:
    """The key of a stored secret, wrapped with another passphrase; the value stays as it is."""
    rotated = rotate_secret_encryption(document["value"], document["wrapped_dek"], old, new)
    wrapped: bytes = rotated.wrapped_dek
    return wrapped
