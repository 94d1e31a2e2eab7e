"""Passwords never come out, whatever they look like."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis_flow.core.redact import RedactingFilter, Secret, mask, mask_uri

# The word stands nowhere else, so finding it means that a piece of the password is shown.
CANARY = "Zq7x"
ODD_TEXT = st.text(alphabet=string.printable, max_size=15)
PASSWORDS = st.builds(lambda before, after: before + CANARY + after, ODD_TEXT, ODD_TEXT)
LINE_PASSWORDS = PASSWORDS.filter(lambda text: "\n" not in text and "://" not in text)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mongodb://localhost:27017/db", "mongodb://localhost:27017/db"),
        ("mongodb://user:pw@h1:1,h2:2/db?w=1#team", "mongodb://user:***@h1:1,h2:2/db?w=1#team"),
        ("mongodb://user:p@ss/w:rd#?@h/db", "mongodb://user:***@h/db"),
        ("mongodb://user%3Apw@h/db", "mongodb://user:***@h/db"),
        ("mongodb://user@h/db", "mongodb://user@h/db"),
        ("mongodb://user:S3cret/db", "mongodb://***"),
        ("mongodb://[::1]:27017/db", "mongodb://[::1]:27017/db"),
        ("mongodb://%2Ftmp%2Fx.sock/db", "mongodb://%2Ftmp%2Fx.sock/db"),
        ("user:pw@h/db", "user:***@h/db"),
        ("genesis:///data/a:b@c", "genesis:///data/a:b@c"),
        ("genesis:/data/x", "genesis:/data/x"),
        ("mongodb:/localhost/x", "mongodb:/localhost/x"),
        ("mongodb:/user:S3cret/db", "mongodb:/***"),
        ("mongodb:S3cret@h/db", "mongodb:***@h/db"),
        ("genesis:/S3cret@h/db", "genesis:***@h/db"),
        (
            "mongodb://h/db?tlsCertificateKeyFilePassword=pw&w=1",
            "mongodb://h/db?tlsCertificateKeyFilePassword=***&w=1",
        ),
        (
            "mongodb://h/db?authMechanismProperties=AWS_SESSION_TOKEN:pw",
            "mongodb://h/db?authMechanismProperties=***",
        ),
        (
            "https://x.blob.core.windows.net/c?sv=1&sig=abc%3D&se=2",
            "https://x.blob.core.windows.net/c?sv=1&sig=***&se=2",
        ),
    ],
)
def test_mask_uri(uri: str, expected: str) -> None:
    assert mask_uri(uri) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing here", "nothing here"),
        ("at (mongodb://u:p@h/d), then", "at (mongodb://u:***@h/d), then"),
        ("mongodb://u:p1@h/d and mongodb://u:p2@h/d", "mongodb://u:***@h/d and mongodb://u:***@h/d"),
        ("cannot reach mongodb://localhost:27017/db.", "cannot reach mongodb://localhost:27017/db."),
        ("uri=mongodb://u:p w@h/d", "uri=mongodb://u:***@h/d"),
        ("see https://u:p@host/x and https://host/@name", "see https://***@host/x and https://host/@name"),
        ("AccountName=a;AccountKey=k3y==;EndpointSuffix=e", "AccountName=a;AccountKey=***;EndpointSuffix=e"),
        ("mongodb://u:p@h/d\n  @decorator\n", "mongodb://u:***@h/d\n  @decorator\n"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg://u:***@h/d"),
    ],
)
def test_mask(text: str, expected: str) -> None:
    assert mask(text) == expected


LONG = 500_000


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text",
    [
        "a" * LONG + ":",
        "9" * LONG + ":",
        "https://" + ":" * LONG,
        "https://a:" * (LONG // 10),
        "mongodb://" + "a," * (LONG // 2) + "!",
        "pwd" + " " * LONG + "-:",
        "pwd='" * (LONG // 5),
    ],
    ids=["word", "digits", "colons", "schemes", "hosts", "spaces", "quotes"],
)
def test_a_long_word_is_read_a_few_times_and_not_once_for_each_character(text: str) -> None:
    """Which would take longer than the guard allows: the words have half a million characters."""
    assert mask(f"{text}\nmongodb://u:canary@h/d").endswith("\nmongodb://u:***@h/d")


@given(PASSWORDS)
def test_mask_uri_hides_any_password(password: str) -> None:
    assert CANARY not in mask_uri(f"mongodb://user:{password}@db.example.com/mlflow?w=1#team")


@given(LINE_PASSWORDS)
def test_mask_hides_any_password_of_one_line(password: str) -> None:
    assert CANARY not in mask(f"cannot open 'mongodb://user:{password}@db.example.com/mlflow' (code 5)\nnext")


@given(PASSWORDS)
def test_mask_is_idempotent_for_uris(password: str) -> None:
    once = mask_uri(f"mongodb://user:{password}@h/mlflow")
    assert mask_uri(once) == once


@given(PASSWORDS)
def test_secret_shows_nothing(password: str) -> None:
    secret = Secret(password)
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>9}",
        f"{secret!r}",
        json.dumps([secret], default=str),
    ):
        assert CANARY not in shown
    assert CANARY.encode() not in pickle.dumps(secret)
    assert secret.reveal() == password


def test_secret_equality_and_copies() -> None:
    secret = Secret("päss\udcff")
    for other in (copy.copy(secret), copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):
        assert other == secret
        assert hash(other) == hash(secret)
    assert secret != Secret("other")
    assert secret != "päss\udcff"
    assert secret
    assert not Secret("")


@pytest.fixture
def redacted() -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.Logger("redacted")
    logger.addHandler(handler)
    return logger, stream


def test_filter_masks_message_and_arguments(redacted: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = redacted
    logger.info("open %s with %d", "mongodb://u:canary@h/d", 3)
    logger.info("open %(uri)s", {"uri": "mongodb://u:canary@h/d"})
    logger.info("failed: %s", ValueError("mongodb://u:canary@h/d"))
    logger.info("plain %s", "text")
    assert stream.getvalue().splitlines() == [
        "open mongodb://u:***@h/d with 3",
        "open mongodb://u:***@h/d",
        "failed: mongodb://u:***@h/d",
        "plain text",
    ]


def test_filter_masks_tracebacks(redacted: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = redacted
    try:
        raise ValueError("cannot open mongodb://u:canary@h/d")
    except ValueError:
        logger.exception("failed", stack_info=True)
    assert "ValueError: cannot open mongodb://u:***@h/d" in stream.getvalue()
    assert "canary@" not in stream.getvalue()


def test_filter_masks_records_that_cannot_be_formatted(
    redacted: tuple[logging.Logger, io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    logger, _ = redacted
    logger.info("open %d", "mongodb://u:canary@h/d")
    reported = capsys.readouterr().err
    assert "Logging error" in reported
    assert "mongodb://u:***@h/d" in reported
