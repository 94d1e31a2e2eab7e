"""What users read of the driver's errors."""

import pytest
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from genesis_flow.mongo import error_edge

ERRORS = [
    OperationFailure("of {braces}", 10334),
    OperationFailure("of {braces}", 11000),
    OperationFailure("command insert requires authentication {braces}", 13),
    OperationFailure("not allowed {braces}", 13),
    OperationFailure("of {braces}", 18),
    OperationFailure("of {braces}", 50),
    OperationFailure("of {braces}", 16500),
    PyMongoError("Cannot use MongoClient after close"),
    AutoReconnect("of {braces}"),
]


@pytest.mark.parametrize("place", range(len(ERRORS)))
def test_each_meaning_has_its_text_whatever_the_server_and_the_uri_say(place: int) -> None:
    told = error_edge.translate(ERRORS[place], "mongodb://localhost/{odd}", 2.5).message
    before, where, after = error_edge._MEANINGS[place][2].partition("{where}")
    assert told.startswith(before.partition("{")[0])
    assert ("mongodb://localhost/{odd}" in told) == bool(where)
    assert ("{braces}" in told) == ("{reason}" in before + after)


def test_every_meaning_is_tried() -> None:
    assert len(ERRORS) == len(error_edge._MEANINGS)
