"""Store URIs: ``mongodb://…/database[?options][#prefix]`` and ``genesis:///absolute/dir[#prefix]``.

The parts are cut here by a strict grammar before the driver sees any of them, because the driver's own error
messages repeat pieces of a malformed URI, and with it pieces of the password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_plus, unquote_to_bytes

from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import Secret, is_clean_host_list, mask_uri

SCHEMES = ("mongodb", "mongodb+srv", "genesis")
EMBEDDED_DATABASE = "mlflow"
EMBEDDED_DIRECTORY = "genesis-data"
EXAMPLE = "mongodb://localhost:27017/mlflow"

_UNESCAPED_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DATABASE_NAME = re.compile(r"[^/\\. \"$*<>:|?\x00]{1,63}")
_SYSTEM_DATABASES = ("admin", "local", "config")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
_SECRET_OPTIONS = frozenset(("authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"))
# The service by request units; the other one, Azure DocumentDB, has mongocluster in its place.
_COSMOS_RU_HOST = re.compile(r"\.mongo\.cosmos\.azure\.com(:\d+)?$", re.IGNORECASE)
_COSMOS_HOST = re.compile(r"\.cosmos\.azure\.com(:\d+)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GenesisUri:
    """An embedded MongoDB in a directory."""

    directory: Path
    prefix: str | None


@dataclass(frozen=True, slots=True)
class MongoUri:
    """A server's URI in parts; options keep the user's spelling, checked but not converted."""

    scheme: str
    hosts: str
    database: str
    options: tuple[tuple[str, Secret], ...]
    username: str | None
    password: Secret | None
    prefix: str | None

    def option(self, name: str) -> str | None:
        """The last value given for an option, whatever the case of its name."""
        values = [value.reveal() for key, value in self.options if key.lower() == name.lower()]
        return values[-1] if values else None

    def render(self, *, with_database: bool, left_out: Collection[str] = ()) -> str:
        """The URI without user name, password and prefix, and without the named options (in lower case)."""
        database = quote(self.database, safe="") if with_database else ""
        # The driver decodes this one option itself, later than the others; here it is as the user wrote it.
        pairs = [
            f"{name}={value.reveal() if name.lower() == 'authmechanismproperties' else _quote(value)}"
            for name, value in self.options
            if name.lower() not in left_out
        ]
        query = "?" + "&".join(pairs) if pairs else ""
        return f"{self.scheme}://{self.hosts}/{database}{query}"

    @property
    def is_cosmos_ru(self) -> bool:
        return any(_COSMOS_RU_HOST.search(host) for host in self.hosts.split(","))

    @property
    def is_cosmos(self) -> bool:
        return any(_COSMOS_HOST.search(host) for host in self.hosts.split(","))


def scheme_of(uri: str) -> str:
    """The URI's scheme in lower case, or an empty string."""
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def is_ours(uri: object) -> bool:
    """Whether this, which MLflow may be given by anybody, is the URI of a store of ours."""
    return isinstance(uri, str) and scheme_of(uri) in SCHEMES


def parse(uri: str, source: str) -> GenesisUri | MongoUri:
    """Cut a store URI into its parts; ``source`` says in errors where the URI came from."""
    scheme = scheme_of(uri)
    if scheme == "genesis":
        return _parse_genesis(uri, source)
    if scheme in SCHEMES:
        return _parse_mongo(uri, scheme, source)
    if uri.lower().startswith("genesis:"):
        raise invalid(_wants_directory(uri, uri.partition(":")[2], source))
    raise invalid(
        f"The store URI {mask_uri(uri)!r} ({source}) must begin with mongodb://, mongodb+srv:// or "
        f"genesis://; for example {EXAMPLE}."
    )


def _parse_genesis(uri: str, source: str) -> GenesisUri:
    rest, hash_sign, fragment = uri.partition("://")[2].partition("#")
    shown = f"The store URI {mask_uri(uri)!r} ({source})"
    if "?" in rest:
        raise invalid(f"{shown} takes no options: remove what follows '?', or write %3F for one in a path.")
    if rest and not rest.startswith("/"):
        raise invalid(_wants_directory(uri, rest, source))
    prefix = normalize_prefix(unquote(fragment), f"the fragment of the {source}") if hash_sign else None
    if not rest:
        return GenesisUri(Path.cwd() / EMBEDDED_DIRECTORY, prefix)
    raw = unquote_to_bytes(rest.encode("utf-8", "surrogateescape"))
    if b"\0" in raw:
        raise invalid(f"{shown} contains a null byte, which no directory name can: remove %00.")
    path = os.fsdecode(raw)
    if os.name == "nt":
        path = path.lstrip("/")
    # Normalised without following links, so that a link to a data directory keeps the name the user chose.
    return GenesisUri(Path(os.path.abspath(path)), prefix)  # noqa: PTH100


def _wants_directory(uri: str, path: str, source: str) -> str:
    """What to say of a ``genesis:`` with too few slashes, or with a directory from here."""
    path = path.partition("#")[0].partition("?")[0]
    shown = mask_uri(uri)
    if shown != uri or not path:
        meant = "/dir"  # what was masked is not repeated
    elif path.startswith(("/", ".", "~")):
        meant = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111
    else:
        meant = f"/{path}, or genesis://{os.path.abspath(path)} for a folder here"  # noqa: PTH100
    return (
        f"The store URI {shown!r} ({source}) needs three slashes and an absolute directory, as in "
        f"genesis://{meant}; genesis:// alone means ./{EMBEDDED_DIRECTORY}."
    )


def _parse_mongo(uri: str, scheme: str, source: str) -> MongoUri:
    shown = f"The store URI {mask_uri(uri)!r} ({source})"
    rest = uri.partition("://")[2]
    authority, tail = _split_authority(rest)
    if rest.count("@") > authority.count("@") or authority.count("@") > 1:
        raise invalid(
            f"{shown} has more than one '@', or one after the host: percent-encode the user name and "
            "password with urllib.parse.quote(text, safe='')."
        )
    userinfo, at, hosts = authority.rpartition("@")
    username, password = _parse_userinfo(userinfo, shown) if at else (None, None)
    if not is_clean_host_list(hosts):
        raise invalid(f"{shown} must name its hosts as host[:port][,host[:port]…]; for example {EXAMPLE}.")
    tail, hash_sign, fragment = tail.partition("#")
    path, _, query = tail.partition("?")
    database = _database_name(path, shown)
    prefix = normalize_prefix(unquote(fragment), f"the fragment of the {source}") if hash_sign else None
    options = _parse_options(query, shown)
    _check_with_driver(scheme, hosts, options, shown)
    return MongoUri(scheme, hosts, database, options, username, password, prefix)


def _split_authority(rest: str) -> tuple[str, str]:
    match = re.search(r"[/?#]", rest)
    return (rest[: match.start()], rest[match.start() :]) if match else (rest, "")


def _parse_userinfo(userinfo: str, shown: str) -> tuple[str, Secret | None]:
    user, _, password = userinfo.partition(":")
    if ":" in password or _UNESCAPED_PERCENT.search(userinfo):
        raise invalid(
            f"{shown} has a ':' or '%' in the password or user name that is not percent-encoded: "
            "write it with urllib.parse.quote(text, safe='')."
        )
    if not user:
        raise invalid(f"{shown} has an empty user name: write user:password@ before the host, or nothing.")
    return unquote_plus(user), Secret(unquote_plus(password)) if password else None


def _database_name(path: str, shown: str) -> str:
    name = unquote(path.removeprefix("/"))
    if not name:
        raise invalid(f"{shown} names no database: add one after the host, as in {EXAMPLE}.")
    if not _DATABASE_NAME.fullmatch(name):
        raise invalid(
            f"{shown} names the database {name!r}: use at most 63 characters, none of them a space or one of "
            '/ \\ . " $ * < > : | ?'
        )
    if name in _SYSTEM_DATABASES:
        raise invalid(
            f"{shown} names MongoDB's own database {name!r}: name one for MLflow, and give the database "
            f"that holds the user as an option (/mlflow?authSource={name})."
        )
    return name


def _parse_options(query: str, shown: str) -> tuple[tuple[str, Secret], ...]:
    options: list[tuple[str, Secret]] = []
    for index, pair in enumerate(filter(None, query.replace(";", "&").split("&")), start=1):
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise invalid(f"{shown}: option {index} after '?' must be written name=value.")
        raw = value if name.lower() == "authmechanismproperties" else unquote_plus(value)
        options.append((name, Secret(raw)))
    return tuple(_modern_option(name, value, shown) for name, value in options)


def _modern_option(name: str, value: Secret, shown: str) -> tuple[str, Secret]:
    """Translate ``ssl_cert_reqs``, which the driver dropped but which many connection strings still carry."""
    if name.lower() != "ssl_cert_reqs":
        return name, value
    choices = {"CERT_NONE": "true", "CERT_OPTIONAL": "false", "CERT_REQUIRED": "false"}
    if value.reveal().upper() not in choices:
        raise invalid(f"{shown}: ssl_cert_reqs must be CERT_NONE or CERT_REQUIRED.")
    return "tlsAllowInvalidCertificates", Secret(choices[value.reveal().upper()])


def _check_with_driver(scheme: str, hosts: str, options: tuple[tuple[str, Secret], ...], shown: str) -> None:
    """Let PyMongo judge the options, one by one so that the error names the option, then together."""
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import split_hosts, split_options, validate_options

    problem = ""
    for name, value in options:
        try:
            validate_options({name: value.reveal()})
        except (ValueError, TypeError, OSError, PyMongoError) as exc:
            if name.lower() not in _SECRET_OPTIONS:
                raise invalid(f"{shown}: option {name}: {exc}") from exc
            problem = f"{shown}: option {name} is not valid: percent-encode its reserved characters."
    if problem:
        # Raised out here because the driver's message may repeat the secret, and would be chained.
        raise invalid(problem)
    public = "&".join(
        f"{name}={_quote(value)}" for name, value in options if name.lower() not in _SECRET_OPTIONS
    )
    try:
        parsed: Any = split_options(public) if public else {}
        nodes = split_hosts(hosts, default_port=None if scheme == "mongodb+srv" else 27017)
    except (ValueError, TypeError, PyMongoError) as exc:
        raise invalid(f"{shown}: {exc}") from exc
    if scheme == "mongodb+srv" and (len(nodes) != 1 or nodes[0][1] is not None):
        raise invalid(f"{shown}: mongodb+srv:// takes one host name without a port.")
    if len(nodes) > 1 and parsed.get("directConnection"):
        raise invalid(f"{shown}: directConnection=true needs a single host.")


def _quote(value: Secret) -> str:
    return quote(value.reveal(), safe="/:,")


def normalize_prefix(prefix: str, source: str) -> str:
    """``team`` becomes ``team_``; an empty prefix stays empty."""
    if not prefix:
        return ""
    if not _PREFIX.fullmatch(prefix) or ".." in prefix or prefix.startswith("system."):
        raise invalid(
            f"The collection prefix {prefix!r} ({source}) must begin with a letter, digit or underscore "
            "and hold only letters, digits, '_', '-' and single '.', at most 64; for example 'team'."
        )
    return prefix if prefix.endswith("_") else prefix + "_"
