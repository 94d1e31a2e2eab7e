"""The one place where a driver's error becomes an MlflowException."""

import random
import re
from collections.abc import Callable

from bson.errors import BSONError, InvalidDocument
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    RESOURCE_ALREADY_EXISTS,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
)
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from genesis_flow.core.driver_text import plain_text
from genesis_flow.core.errors import GenesisFlowError

# The driver, BSON and the server raise these for values that a document cannot hold.
UNSTORABLE = (BSONError, OverflowError, UnicodeError)

_UNAUTHORIZED = 13
_DUPLICATE = 11000
_NO_USER = "requires authentication"
_AUTHENTICATION = {11, 18, 8000}
_TOO_LARGE = {10334, 17280, 17419, 17420}
_TIMED_OUT = {50, 89, 262}
_THROTTLED = {16500, 429}
# MongoDB 9 limits them; its pages give the name of the error only.
_TOO_MANY_TRANSACTIONS = "TooManyOpenTransactions"
_RETRY_AFTER = re.compile(r"RetryAfterMs=(\d+)")
# Not primary, shutting down, interrupted by either, a write conflict that lost its race; 175: a query that
# ended with its index or, since MongoDB 9, because the index turned multikey.
_PASSING = {
    *(6, 7, 63, 89, 91, 112, 133, 150, 175, 189, 234, 262),
    *(9001, 10107, 11600, 11602, 13388, 13435, 13436),
}

# Of a standalone server, to which PyMongo (4.20) repeats a write as one for a replica set when the connection
# that it was making broke. Nothing was done then.
_NOT_RETRYABLE = 20
_NOT_RETRYABLE_TEXT = "does not support retryable writes"
_NOT_RETRYABLE_TRIES = 3

# Of a client that was closed while a call used it, and of a pool whose server left the replica set.
_CLOSED = ("MongoClient after close", "closed connection pool")

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 2.0
# Together they wait for two to three seconds.
_MEANWHILE_ATTEMPTS = 6


def retry_delay(error: PyMongoError, attempt: int, *, connected: bool = True) -> float | None:
    """Seconds to wait before the call may be tried again, or None when trying again cannot help.

    A server that was never reached is more likely named wrongly than away for a moment.
    """
    if isinstance(error, ServerSelectionTimeoutError):
        return _backoff(attempt) if connected else None
    if isinstance(error, ConfigurationError) or has_run_out(error):
        return None
    code = _code(error)
    if _is_throttled(error):
        # The wait that was asked for, and some more: else all who were sent away together come back together.
        return _retry_after(error) + _backoff(attempt)
    if (
        isinstance(error, AutoReconnect)
        or code in _PASSING
        or _is_closed(error)
        or (code == _NOT_RETRYABLE and _NOT_RETRYABLE_TEXT in str(error) and attempt < _NOT_RETRYABLE_TRIES)
        or error.has_error_label("TransientTransactionError")
    ):
        return _backoff(attempt)
    return None


class Meanwhile(MlflowException):
    """Refused for what another call is doing at this moment: worth a few attempts before the user is told."""


def meanwhile_delay(attempt: int) -> float | None:
    """Seconds to wait for the other call, or None when it takes so long that it may never end."""
    return _backoff(attempt) if attempt < _MEANWHILE_ATTEMPTS else None


def _is_throttled(error: Exception) -> bool:
    if not isinstance(error, PyMongoError):
        return False
    named = isinstance(error, OperationFailure) and (error.details or {}).get("codeName")
    return _code(error) in _THROTTLED or named == _TOO_MANY_TRANSACTIONS


def _backoff(attempt: int) -> float:
    ceiling = min(_LONGEST_DELAY, _FIRST_DELAY * 2**attempt)
    return random.uniform(ceiling / 2, ceiling)


def _retry_after(error: PyMongoError) -> float:
    """Azure names its wait in the message: ``Error=16500, RetryAfterMs=13, ...``; the longest of several."""
    return max((int(wait) for wait in _RETRY_AFTER.findall(str(error))), default=0) / 1000


def _code(error: PyMongoError) -> int | None:
    if isinstance(error, BulkWriteError):
        failures = [
            *(error.details.get("writeErrors") or []),
            *(error.details.get("writeConcernErrors") or []),
        ]
        codes = [code for failure in failures if isinstance(code := failure.get("code"), int)]
        # One that passes makes the whole call worth repeating; what does not pass comes up again then.
        passing = [code for code in codes if code in _THROTTLED | _PASSING]
        return next(iter(passing or codes), None)
    return error.code if isinstance(error, OperationFailure) else None


def is_unauthorized(error: OperationFailure) -> bool:
    return error.code == _UNAUTHORIZED


def is_too_large(error: Exception) -> bool:
    """Whether the driver or the server refuses a document for its size."""
    code = _code(error) if isinstance(error, PyMongoError) else None
    return isinstance(error, DocumentTooLarge | InvalidDocument) or code in _TOO_LARGE


def translate(error: Exception, where: str, timeout: float) -> MlflowException:
    """The sentence for the user about ``error``; ``where`` names the database, without credentials."""
    if isinstance(error, UNSTORABLE) and not isinstance(error, DocumentTooLarge):
        return MlflowException(
            f"A value cannot be stored: {plain_text(error)}. Numbers must fit 64 bits and text must be valid "
            "Unicode.",
            INVALID_PARAMETER_VALUE,
        )
    if isinstance(error, GenesisFlowError):
        return MlflowException(str(error), TEMPORARILY_UNAVAILABLE)
    code = _code(error) if isinstance(error, PyMongoError) else None
    for applies, error_code, text in _MEANINGS:
        if applies(error, code):
            text = text.format(where=where, timeout=timeout, reason=plain_text(error))
            return MlflowException(text, error_code)
    return MlflowException(f"MongoDB could not do this in {where}: {plain_text(error)}", INTERNAL_ERROR)


def _is_closed(error: Exception) -> bool:
    return isinstance(error, PyMongoError) and any(text in str(error) for text in _CLOSED)


def has_run_out(error: Exception) -> bool:
    """Whether the time given to the driver has passed, be it that of the call or a share of it."""
    return (
        isinstance(error, PyMongoError)
        and error.timeout
        and not isinstance(error, ServerSelectionTimeoutError)
    )


def server_works(error: PyMongoError) -> bool:
    """Whether the server itself ended the command, which needs longer: the connection is sound."""
    return isinstance(error, ExecutionTimeout) and (error.details or {}).get("codeName") == "MaxTimeMSExpired"


# Meanings of errors of the server and of the driver, the most telling first: whether an error with this code
# does, MLflow's code for it, and the text.
_MEANINGS: tuple[tuple[Callable[[Exception, int | None], bool], int, str], ...] = (
    (
        lambda error, code: is_too_large(error),
        INVALID_PARAMETER_VALUE,
        "The write would make a document larger than the server allows (16 MB, or 2 MB on Azure Cosmos "
        "DB): {reason}. All params and tags of a run share one document: log large values as artifacts "
        "instead. Nothing was written.",
    ),
    (
        lambda error, code: isinstance(error, DuplicateKeyError) or code == _DUPLICATE,
        RESOURCE_ALREADY_EXISTS,
        "The same thing exists already in {where}: {reason}",
    ),
    (
        lambda error, code: code == _UNAUTHORIZED and _NO_USER in str(error),
        UNAUTHENTICATED,
        "No user was given, and {where} lets in nobody without one: {reason}. Name the user and the "
        "password in GENESIS_FLOW_MONGODB_USERNAME and GENESIS_FLOW_MONGODB_PASSWORD, or in the URI.",
    ),
    (
        lambda error, code: code == _UNAUTHORIZED,
        PERMISSION_DENIED,
        "The database user may not do this in {where}: {reason}. Ask for the role readWrite on that "
        "database; the role read is enough to look at runs.",
    ),
    (
        lambda error, code: code in _AUTHENTICATION,
        UNAUTHENTICATED,
        "MongoDB refused the user name or password for {where}: {reason}. Check the credentials and "
        "authSource.",
    ),
    (
        lambda error, code: isinstance(error, ExecutionTimeout) or code in _TIMED_OUT or has_run_out(error),
        DEADLINE_EXCEEDED,
        "{where} did not finish the call within {timeout:g} s: {reason}. Try again, or allow more time "
        "with GENESIS_FLOW_TIMEOUT (seconds).",
    ),
    (
        lambda error, code: _is_throttled(error),
        REQUEST_LIMIT_EXCEEDED,
        "{where} refuses requests because there are too many, and did so for {timeout:g} s: {reason}. "
        "Log less often or in larger batches, raise the throughput (RU/s) of the database, or allow more "
        "time with GENESIS_FLOW_TIMEOUT (seconds).",
    ),
    (
        lambda error, code: _is_closed(error),
        TEMPORARILY_UNAVAILABLE,
        "The connection to {where} was closed during the call: what it was to write may or may not be "
        "stored. Call again.",
    ),
    (
        lambda error, code: isinstance(error, ConnectionFailure) or code in _PASSING,
        TEMPORARILY_UNAVAILABLE,
        "Cannot reach {where}: {reason}. Check that the server runs, that its address is right and that "
        "this machine may connect to it.",
    ),
)
