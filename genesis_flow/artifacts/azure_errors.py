"""Exceptions of Azure's library become MLflow's; nothing secret survives the passage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.redact import mask

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError
    from mlflow.exceptions import MlflowException

_MOST_CHARACTERS = 600
_REFUSED = (401, 403)


class BlobServiceError(GenesisFlowError):
    """What Azure's library said, masked: its own exceptions carry URLs, and so SAS tokens, in many places."""


class ContendedBlobError(GenesisFlowError):
    """Others replaced the blob again and again meanwhile; the message goes on a sentence about it."""


@contextmanager
def storage_errors(action: str, place: str, credential: str) -> Iterator[None]:
    """Raise MLflow's error for "action of place", such as ``upload`` of ``azure://container/path``."""
    from azure.core.exceptions import AzureError
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ABORTED

    try:
        yield
    except ContendedBlobError as error:
        raise MlflowException(f"Cannot {action} {place}: {error}.", error_code=ABORTED) from error
    except AzureError as error:
        failure, cause = _translated(error, action, place, credential), _without_secrets(error)
    else:
        return
    # Outside the handler, so that the original is no hidden context of what is raised.
    raise failure from cause


def _translated(error: AzureError, action: str, place: str, credential: str) -> MlflowException:
    from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError, ServiceResponseError
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2 as codes

    code = error_code(error)
    status = getattr(error, "status_code", None)
    if code == "ContainerNotFound":
        sentence, kind = "the container does not exist: create it, or correct the URI", "missing"
    elif isinstance(error, ClientAuthenticationError) and status not in _REFUSED:
        sentence, kind = f"{credential} gave no token: {_said(error)}", "unknown"
    elif code == "BlobNotFound" or status == 404:
        sentence, kind = "there is no such blob", "missing"
    elif status in _REFUSED:
        sentence = f"the credentials from {credential} do not allow it ({code or status})"
        kind = "refused"
    elif isinstance(error, ServiceRequestError | ServiceResponseError):
        sentence = "the service cannot be reached; check the account's name, the network and the firewall"
        kind = "away"
    elif status in (408, 429) or (status or 0) >= 500:
        sentence, kind = f"the service is busy or ill ({code or status}); try again later", "away"
    elif status is not None and 400 <= status < 500:
        sentence, kind = f"the service refused the request ({code or status})", "bad"
    else:
        sentence, kind = _said(error), "other"
    error_codes = {
        "missing": codes.RESOURCE_DOES_NOT_EXIST,
        "refused": codes.PERMISSION_DENIED,
        "unknown": codes.UNAUTHENTICATED,
        "away": codes.TEMPORARILY_UNAVAILABLE,
        "bad": codes.BAD_REQUEST,
        "other": codes.INTERNAL_ERROR,
    }
    return MlflowException(f"Cannot {action} {place}: {sentence}.", error_code=error_codes[kind])


def error_code(error: AzureError) -> str | None:
    """The service's own name of an error, such as ``BlobNotFound``."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code)) if code else None


def _without_secrets(error: AzureError) -> BlobServiceError:
    return BlobServiceError(f"{type(error).__name__}: {_said(error)}").with_traceback(error.__traceback__)


def _said(error: AzureError) -> str:
    text = " ".join(mask(str(error.message)).split())
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"
