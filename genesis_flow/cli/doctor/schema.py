"""Is the schema the one that this version works with, and are its indexes there?"""

from collections import Counter

from genesis_flow.cli.doctor.finding import Finding, fail, ok, warn
from genesis_flow.cli.doctor.patient import Patient
from genesis_flow.migrate import command

_NAMED = 5


def version(patient: Patient) -> Finding:
    status = command.status(patient.config)
    details = {"current": status.current, "head": status.head}
    if status.problems:
        return fail("schema", " ".join(status.problems), "See `genesis-migrate status`.", **details)
    if status.lock is not None and not status.lock.expired:
        return warn(
            "schema",
            f"A migration is running: {status.lock.describe()}.",
            "Wait until it is done; `genesis-migrate status` shows where it is.",
            **details,
        )
    waiting = [step for step in status.steps if step.state != "applied"]
    if not waiting:
        return ok("schema", f"Version {status.current}, the newest that is known here.", **details)
    if status.current is None and not _holds_anything(patient):
        return ok("schema", "The database is empty; the first call of a store makes the schema.", **details)
    return fail(
        "schema",
        f"Version {status.current}; {len(waiting)} steps are missing up to {status.head}.",
        "Run `genesis-migrate up` once, with a user that may make indexes.",
        **details,
    )


def _holds_anything(patient: Patient) -> bool:
    prefix = patient.settings.prefix
    return any(name.startswith(prefix) for name in patient.db.list_collection_names())


def indexes(patient: Patient) -> Finding:
    """Compared with what the documents declare."""
    from genesis_flow.stores.areas import DECLARED

    if not _holds_anything(patient):
        return ok("indexes", "None yet: the database is empty.")
    findings = [finding for finding in command.check(patient.config, DECLARED) if finding.kind != "note"]
    counted = Counter(finding.kind for finding in findings)
    named = [f"{finding.kind} {finding.what}" for finding in findings]
    details = {"differences": [f"{finding.kind} {finding.what}: {finding.detail}" for finding in findings]}
    if not findings:
        return ok("indexes", "All collections and indexes are as declared.", **details)
    listed = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
    if set(counted) == {"extra"}:
        return warn(
            "indexes",
            f"Indexes that nobody declared, and that every write has to keep: {listed}.",
            "Drop them unless your own queries need them.",
            **details,
        )
    return fail(
        "indexes",
        f"Not as declared: {listed}.",
        "Run `genesis-migrate up` if the schema is old; else make what `genesis-migrate check` lists.",
        **details,
    )
