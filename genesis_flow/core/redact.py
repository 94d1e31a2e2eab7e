"""Keep passwords out of everything that people or files can see."""

from __future__ import annotations

import base64
import hmac
import logging
import re
from itertools import pairwise
from typing import Any

MASK = "***"

# Schemes whose URIs habitually carry a database password. Passwords are pasted into them unescaped, so
# anything up to the last "@" of the line counts as user information: hiding too much beats hiding too little.
_DATABASE_SCHEMES = frozenset(
    ("mongodb", "genesis", "postgres", "postgresql", "mysql", "mariadb", "mssql", "oracle", "redis")
)
# What comes before the scheme is part of the match, so that a long word without one is read once.
_SCHEME = re.compile(r"(?<![A-Za-z0-9+.\-])[0-9+.\-]*+(?P<name>[A-Za-z][A-Za-z0-9+.\-]*+)://")
# Up to the first colon and no later one: each would be another look for an "@".
_USER_AND_PASSWORD = re.compile(r"[^\s/?#@:]*:[^\s/@]*@")
# A slash short: people have to see what they typed. With an "@" the word may also be a user's name.
_ONE_SLASH = re.compile(r"(genesis|mongodb(?:\+srv)?)(:/)([^/@][^@]*)", re.IGNORECASE)
_SEPARATORS = frozenset(" \t\n\r\f\v\"'`([{<=,;|")
_CLEAN_HOSTS = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+(?:%25[\w.\-]+)?\]|[\w.~%\-]+)(?::\d{1,5})?"
    r"(?:,(?:\[[0-9A-Fa-f:.]+(?:%25[\w.\-]+)?\]|[\w.~%\-]+)(?::\d{1,5})?)*"
)
_USER_END = re.compile(r":|%3a", re.IGNORECASE)
_SECRET_OPTION = re.compile(
    r"(?P<name>\b(?:tlsCertificateKeyFilePassword|authMechanismProperties|proxyPassword|ssl_pem_passphrase"
    r"|AWS_SESSION_TOKEN|AccountKey|SharedAccessKey|sig|password|passwd|pwd)\s*[=:]\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^&;\s\"']+)",
    re.IGNORECASE,
)


class Secret:
    """A string that shows itself only through :meth:`reveal`, not to a dump of what objects hold.

    It can be pickled, because a store has to travel to worker processes; the pickle holds it encoded, so that
    a dump of the bytes does not show it, but not encrypted.
    """

    __slots__ = ("_revealed",)

    def __init__(self, value: str) -> None:
        self._revealed = lambda: value  # an attribute would show it to whoever walks through attributes

    def reveal(self) -> str:
        return self._revealed()

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return format(MASK, format_spec)

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_to_bytes(self.reveal()), _to_bytes(other.reveal()))

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_secret, (base64.b85encode(_to_bytes(self.reveal())),)


def _to_bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _restore_secret(encoded: bytes) -> Secret:
    return Secret(base64.b85decode(encoded).decode("utf-8", "surrogatepass"))


def is_clean_host_list(hosts: str) -> bool:
    """Whether the text can only be a list of hosts, and not a user name and password that lost their "@"."""
    return _CLEAN_HOSTS.fullmatch(hosts) is not None


def mask_uri(uri: str) -> str:
    """The URI with its passwords replaced by ``***``; safe whatever the password looks like."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "", uri
        if typo := _ONE_SLASH.fullmatch(uri):
            scheme, separator, rest = typo.groups()
    return _mask_options(scheme + separator + _mask_authority(scheme, rest))


def mask(text: str) -> str:
    """A text with the passwords of every URI and secret option in it replaced."""
    if "://" not in text and "=" not in text and ":" not in text:
        return text
    return _mask_options("\n".join(_mask_line(line) for line in text.split("\n")))


def _mask_line(line: str) -> str:
    starts = [
        start
        for index, start in enumerate(match.start("name") for match in _SCHEME.finditer(line))
        # Inside a URI, "x://" belongs to an odd password unless something separates it from what came before.
        if index == 0 or line[start - 1] in _SEPARATORS
    ]
    if not starts:
        return line
    pieces = [_mask_piece(line[start:stop]) for start, stop in pairwise([*starts, len(line)])]
    return line[: starts[0]] + "".join(pieces)


def _mask_piece(piece: str) -> str:
    """Mask one URI together with the words that follow it up to the next URI."""
    scheme, separator, rest = piece.partition("://")
    if scheme.lower().partition("+")[0] not in _DATABASE_SCHEMES:
        login = _USER_AND_PASSWORD.match(rest)
        return scheme + separator + (f"{MASK}@{rest[login.end() :]}" if login else rest)
    if "@" in rest:
        return scheme + separator + _mask_authority(scheme, rest)
    uri = re.split(r"\s", rest, maxsplit=1)[0].rstrip("\"'`)]}>.,;:")
    return scheme + separator + _mask_authority(scheme, uri) + rest[len(uri) :]


def _mask_authority(scheme: str, rest: str) -> str:
    if scheme.lower() == "genesis" and rest.startswith("/"):
        return rest
    userinfo, at, remainder = rest.rpartition("@")
    if at:
        end = _USER_END.search(userinfo)
        return f"{userinfo[: end.start()]}:{MASK}@{remainder}" if end else rest
    hosts = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return rest if not hosts or is_clean_host_list(hosts) else MASK


def _mask_options(text: str) -> str:
    return _SECRET_OPTION.sub(lambda match: match["name"] + MASK, text)


class RedactingFilter(logging.Filter):
    """Masks passwords in a log record's message, arguments and traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # The handler reports a record that cannot be formatted, and prints its arguments.
            record.msg = mask(str(record.msg))
            record.args = _mask_arguments(record.args)
        else:
            masked = mask(message)
            if masked != message:
                record.msg, record.args = masked, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = mask(record.exc_text)
        if record.stack_info:
            record.stack_info = mask(record.stack_info)
        return True


def _mask_arguments(arguments: Any) -> Any:
    if isinstance(arguments, dict):
        return {key: mask(str(value)) for key, value in arguments.items()}
    return tuple(mask(str(value)) for value in arguments or ())
