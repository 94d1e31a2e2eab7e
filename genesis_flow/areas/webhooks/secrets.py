"""Webhook secrets, encrypted at rest with the key that MLflow's SQL store uses as well."""

import functools
import logging
from typing import TYPE_CHECKING

from mlflow.environment_variables import MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE

from genesis_flow.core.errors import invalid

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_logger = logging.getLogger("genesis_flow")

VARIABLE = MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY.name


def encrypt(secret: str) -> str:
    return _cipher().encrypt(secret.encode()).decode()


def decrypt(stored: str) -> str:
    from cryptography.fernet import InvalidToken

    try:
        return _cipher().decrypt(stored.encode()).decode()
    except InvalidToken as error:
        raise MlflowException(
            f"The secret of a webhook cannot be decrypted: set {VARIABLE} to the key it was stored with, or "
            "give the webhook a new secret.",
            INVALID_STATE,
        ) from error


def _cipher() -> "Fernet":
    try:
        from cryptography.fernet import Fernet
    except ImportError as error:
        raise invalid(
            "Webhook secrets need the package cryptography: run `pip install cryptography`."
        ) from error
    key = MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY.get()
    try:
        return Fernet(key or _key_of_this_process())
    except ValueError as error:
        raise invalid(
            f"{VARIABLE} is not a Fernet key: 32 bytes in URL-safe base64, as made by "
            "`python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'`."
        ) from error


@functools.cache
def _key_of_this_process() -> bytes:
    from cryptography.fernet import Fernet

    _logger.warning(
        "%s is not set: webhook secrets are encrypted with a key that only this process knows and that is "
        "lost when it ends. Set the variable to a Fernet key, the same for all processes.",
        VARIABLE,
    )
    return Fernet.generate_key()
