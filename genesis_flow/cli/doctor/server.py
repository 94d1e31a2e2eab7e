"""What the server is, what the user may do there, and what the client is set to."""

import sys
from typing import Any

from pymongo.errors import OperationFailure

from genesis_flow.cli.doctor.finding import Finding, fail, ok, skip, warn
from genesis_flow.cli.doctor.patient import Patient
from genesis_flow.core.settings import Embedded
from genesis_flow.migrate.rights import EVERYTHING, NEEDED, UNAUTHORIZED, explain_missing, granted_actions

_OLDEST_TESTED = (6, 0)
# From which release of each line on strangers cannot read memory by zlib (CVE-2025-14847); older lines were
# never mended, newer ones never had it.
_MENDED = {(8, 2): 3, (8, 0): 17, (7, 0): 28, (6, 0): 27, (5, 0): 32, (4, 4): 30}
_READ = ("find",)
_WRITE = ("insert", "update", "remove")
_DDL = tuple(action for action in NEEDED if action not in (*_READ, *_WRITE))


def rights(patient: Patient) -> Finding:
    """From what the server says of the user's roles; nothing is tried out."""
    granted = granted_actions(patient.db)
    name = patient.db.name
    if granted is None:
        return skip(
            "rights",
            "The server does not tell what the user may do.",
            "Log a run to find out whether it may write.",
        )
    if granted == EVERYTHING:
        if (refused := _login_wanted(patient)) is not None:
            return refused
        if patient.is_local:
            return ok("rights", "The server asks for no user: everybody on this machine may do everything.")
        return warn(
            "rights",
            "The server asks for no user: everybody who reaches it may read, change and delete everything.",
            "Turn on access control and make a user with the role readWrite on this database.",
        )
    may = {
        kind: [action for action in actions if action not in granted] == []
        for kind, actions in (("read", _READ), ("write", _WRITE), ("schema", _DDL))
    }
    if not may["read"]:
        return fail("rights", f"The user may not read {name!r}.", explain_missing(["find"], name), **may)
    if not may["write"]:
        return warn(
            "rights",
            f"The user may read {name!r}, but not write: nothing can be logged.",
            "That is right for people who only look; others need the role readWrite on this database.",
            **may,
        )
    if not may["schema"]:
        return ok("rights", "Read and write; migrations need a user that may also make indexes.", **may)
    return ok("rights", "Read, write, and change collections and indexes.", **may)


def _login_wanted(patient: Patient) -> Finding | None:
    """Nobody logged in; whether that is how the server wants it shows when something is read."""
    try:
        patient.db[patient.settings.prefix + "runs"].find_one({}, {"_id": 1})
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        return fail(
            "rights",
            "The server wants a user name and a password, and none was given.",
            "Set GENESIS_FLOW_MONGODB_USERNAME and GENESIS_FLOW_MONGODB_PASSWORD_FILE.",
        )
    return None


def version(patient: Patient) -> Finding:
    text = str(patient.command("buildInfo")["version"])
    numbers = tuple(int(part) for part in text.split("-")[0].split(".")[:2])
    if numbers < _OLDEST_TESTED:
        wanted = ".".join(map(str, _OLDEST_TESTED))
        return warn(
            "server",
            f"MongoDB {text}, older than what genesis_flow is tested with.",
            f"Upgrade to {wanted} or newer.",
            version=text,
        )
    if _leaks_memory(text) and _takes_zlib(patient):
        return warn(
            "server",
            f"MongoDB {text}, which lets everybody who reaches it read its memory, because zlib compression "
            "is on (CVE-2025-14847).",
            "Upgrade to its line's newest release, or start it with --networkMessageCompressors snappy,zstd.",
            version=text,
        )
    return ok("server", f"MongoDB {text}.", version=text)


def _leaks_memory(text: str) -> bool:
    numbers = [int(part) for part in text.split("-")[0].split(".")[:3]]
    line, release = (numbers[0], numbers[1]), numbers[2]
    if line in _MENDED:
        return release < _MENDED[line]
    return line < max(_MENDED)


def _takes_zlib(patient: Patient) -> bool:
    """Whether it agrees on zlib with a client that knows nothing else; to ask needs no right."""
    return "zlib" in (patient.command("hello", compression=["zlib"]).get("compression") or ())


def topology(patient: Patient) -> Finding:
    hello = patient.hello
    if hello.get("msg") == "isdbgrid":
        return ok("topology", "A sharded cluster.", kind="sharded")
    if "setName" not in hello:
        return warn(
            "topology",
            "A standalone server: it has no transactions and no failover.",
            "Make it a replica set, even of one member: a crash in a batch then leaves no part.",
            kind="standalone",
        )
    members = len(hello.get("hosts", [])) + len(hello.get("passives", []))
    details: dict[str, Any] = {"kind": "replica set", "members": members}
    if isinstance(patient.settings.target, Embedded):
        return ok(
            "topology", "The embedded server, a replica set of one: transactions, no failover.", **details
        )
    if members == 1:
        return warn(
            "topology",
            f"The replica set {hello['setName']!r} of one member: transactions, but no failover.",
            "Add two members if the data must stay available when one is down.",
            **details,
        )
    return ok("topology", f"The replica set {hello['setName']!r} of {members} members.", **details)


def durability(patient: Patient) -> Finding:
    """Acknowledged must mean durable, and read what was written."""
    settings, uri = patient.settings, patient.uri
    preference = (uri.option("readPreference") if uri else None) or "primary"
    details = {
        "write_concern": settings.write_concern,
        "journal": settings.journal,
        "read_preference": preference,
        "retry_writes": settings.retry_writes is not False,
    }
    said = f"Writes wait for w={settings.write_concern}, searches and histories go to the {preference}."
    by_majority = settings.write_concern == "majority" or not patient.has_transactions
    if settings.journal is False or not by_majority:
        return warn(
            "durability",
            f"{said} Acknowledged writes can be lost when a server dies.",
            "Remove w and journal from the URI: the default is w=majority.",
            **details,
        )
    if preference != "primary":
        return warn(
            "durability",
            f"{said} What another client has just written may look absent there.",
            "Remove readPreference from the URI unless that is accepted; a client sees what it wrote itself.",
            **details,
        )
    return ok("durability", said, **details)


def pool(patient: Patient) -> Finding:
    settings = patient.settings
    details: dict[str, Any] = {
        "max_pool_size": settings.max_pool_size,
        "timeout_seconds": settings.timeout,
        "source": settings.sources.get("max_pool_size"),
    }
    said = f"At most {settings.max_pool_size} connections from a process."
    if (files := _open_files()) is not None and settings.max_pool_size * 2 > files:
        return warn(
            "pool",
            f"{said} This process may open only {files} files, sockets included.",
            "Raise the limit (ulimit -n), or lower MONGODB_MAX_POOL_SIZE.",
            **details,
        )
    try:
        connections = patient.command("serverStatus")["connections"]
    except OperationFailure:
        return ok("pool", f"{said} The server does not tell this user how many it has left.", **details)
    left = int(connections["available"])
    details.update(used=int(connections["current"]), available=left)
    said += f" The server has {connections['current']} open and room for {left} more."
    if left < settings.max_pool_size:
        return warn(
            "pool",
            said,
            "Lower MONGODB_MAX_POOL_SIZE on the clients, or raise the server's limit of connections.",
            **details,
        )
    return ok("pool", said, **details)


def _open_files() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit
