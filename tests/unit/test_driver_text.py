"""What is left of a driver's error in a sentence for people."""

import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from genesis_flow.core.driver_text import plain_text
from genesis_flow.mongo.error_edge import translate

REFUSED = "db:27017: [Errno 111] Connection refused"
TIMEOUTS = "(configured timeouts: socketTimeoutMS: 20000.0ms, connectTimeoutMS: 20000.0ms)"
TOPOLOGY = "Topology Description: <TopologyDescription id: 69, topology_type: Unknown, servers: [...]>"
TIME_LIMIT = "operation would exceed time limit"
COMMAND = '{ insert: "runs", ordered: true, lsid: { id: UUID("3f6f") }, $db: "mlflow" }'


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ServerSelectionTimeoutError(f"{REFUSED} {TIMEOUTS}, Timeout: 30s, {TOPOLOGY}"), REFUSED),
        (AutoReconnect(f"{REFUSED} {TIMEOUTS},{REFUSED} {TIMEOUTS}"), f"{REFUSED},{REFUSED}"),
        (
            OperationFailure(f"not authorized on mlflow to execute command {COMMAND}, full error: {{}}", 13),
            "not authorized on mlflow to execute command insert",
        ),
        (OperationFailure("Authentication failed.", 18), "Authentication failed"),
        (
            ExecutionTimeout(
                f"{TIME_LIMIT}, remaining timeout:-1.38515 <= network round trip time:0.00000", 50
            ),
            TIME_LIMIT,
        ),
        (
            BulkWriteError({"writeErrors": [{"errmsg": "E11000 duplicate key", "op": {"secret": 1}}]}),
            "E11000 duplicate key",
        ),
    ],
    ids=["unreachable", "several hosts", "a whole command", "a full stop", "no time left", "a bulk write"],
)
def test_noise_is_left_out(error: PyMongoError, text: str) -> None:
    assert plain_text(error) == text
    told = translate(error, "mongodb://db/mlflow", 60).message
    assert text in told
    for noise in ("configured timeouts", "lsid", "Topology", "full error", "..", "secret", "round trip"):
        assert noise not in told


def test_no_user_is_not_a_user_who_may_not() -> None:
    nobody = translate(OperationFailure("Command find requires authentication", 13), "mongodb://db/d", 60)
    assert nobody.error_code == "UNAUTHENTICATED"
    assert nobody.message.startswith("No user was given")
    reader = translate(OperationFailure("not authorized on d to execute command", 13), "mongodb://db/d", 60)
    assert reader.error_code == "PERMISSION_DENIED"
