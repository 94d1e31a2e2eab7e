"""User name and password: from the URI, the environment, a file or a command."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from genesis_flow.core.configfile import ConfigFile
from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import Secret
from genesis_flow.core.uri import MongoUri

USERNAME = "GENESIS_FLOW_MONGODB_USERNAME"
PASSWORD = "GENESIS_FLOW_MONGODB_PASSWORD"
PASSWORD_FILE = "GENESIS_FLOW_MONGODB_PASSWORD_FILE"
PASSWORD_COMMAND = "GENESIS_FLOW_MONGODB_PASSWORD_COMMAND"
COMMAND_SECONDS = 10.0

# Mechanisms that prove who the user is by a certificate, ticket or token.
_WITHOUT_PASSWORD = frozenset(("MONGODB-X509", "MONGODB-AWS", "MONGODB-OIDC", "GSSAPI"))


def resolve(
    uri: MongoUri, environ: Mapping[str, str], conf: ConfigFile, sources: dict[str, str], origin: str
) -> tuple[str | None, Secret | None]:
    """The user name and password to connect with, noting in ``sources`` where each came from."""
    if uri.username is not None and uri.password is not None:
        sources["username"] = sources["password"] = f"URI ({origin})"
        return uri.username, uri.password
    username = _username(uri, environ, conf, sources, origin)
    mechanism = (uri.option("authMechanism") or "").upper()
    if username is None and mechanism in _WITHOUT_PASSWORD:
        return None, None
    password = _password(environ, conf, sources)
    if username is None and password is not None:
        raise invalid(
            f"A MongoDB password was given ({sources['password']}) but no user name: "
            f"set {USERNAME}, or remove the password."
        )
    if username is not None and password is None and mechanism not in _WITHOUT_PASSWORD:
        raise invalid(
            f"The MongoDB user {username!r} was given ({sources['username']}) but no password: "
            f"set {PASSWORD}, {PASSWORD_FILE} or {PASSWORD_COMMAND}."
        )
    return username, password


def _username(
    uri: MongoUri, environ: Mapping[str, str], conf: ConfigFile, sources: dict[str, str], origin: str
) -> str | None:
    if uri.username is not None:
        other = environ.get(USERNAME)
        if other and other != uri.username:
            raise invalid(
                f"The store URI names the MongoDB user {uri.username!r} and {USERNAME} names {other!r}: "
                "remove one of them."
            )
        sources["username"] = f"URI ({origin})"
        return uri.username
    if value := environ.get(USERNAME):
        sources["username"] = f"environment {USERNAME}"
        return value
    if value := conf.get("tracking", "username"):
        sources["username"] = conf.source("tracking", "username")
        return value
    return None


def _password(environ: Mapping[str, str], conf: ConfigFile, sources: dict[str, str]) -> Secret | None:
    if value := environ.get(PASSWORD):
        sources["password"] = f"environment {PASSWORD}"
        return Secret(value)
    if value := environ.get(PASSWORD_FILE):
        sources["password"] = f"environment {PASSWORD_FILE}"
        return _from_file(Path(value), PASSWORD_FILE)
    if value := environ.get(PASSWORD_COMMAND):
        sources["password"] = f"environment {PASSWORD_COMMAND}"
        return _from_command(value)
    if value := conf.get("tracking", "password_file"):
        sources["password"] = conf.source("tracking", "password_file")
        return _from_file(Path(value), sources["password"])
    return None


def _from_file(path: Path, named_by: str) -> Secret:
    try:
        text = path.expanduser().read_bytes()
    except OSError as exc:
        raise invalid(
            f"The password file {str(path)!r} named by {named_by} cannot be read ({exc.strerror}): "
            "correct its name or its permissions."
        ) from exc
    return _checked(text, f"The password file {str(path)!r} named by {named_by}")


def _from_command(command: str) -> Secret:
    """Run the command without a shell; neither its arguments nor its output appear in a message."""
    problem = ""
    output = b""
    try:
        arguments = shlex.split(command)
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
        output = done.stdout
        if done.returncode:
            problem = f"failed with exit status {done.returncode}"
    except subprocess.TimeoutExpired:
        problem = f"did not finish within {COMMAND_SECONDS:g} seconds"
    except OSError as exc:
        problem = f"could not be started ({exc.strerror})"
    except (ValueError, IndexError):
        problem = "is not a command line (check its quotes)"
    if problem:
        # Raised out here because the original exceptions repeat the command line, and would be chained.
        raise invalid(f"The command in {PASSWORD_COMMAND} {problem}: run it by hand to see why.")
    return _checked(output, f"The command in {PASSWORD_COMMAND}")


def _checked(raw: bytes, origin: str) -> Secret:
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    if "\N{REPLACEMENT CHARACTER}" in text or not text:
        raise invalid(
            f"{origin} gave {'no' if not text else 'an undecodable'} password: it must be UTF-8 text."
        )
    return Secret(text)
