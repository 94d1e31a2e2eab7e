"""``genesis-migrate import SOURCE --verify``: what is compared with what, and how the answer is told."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import unquote

from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from genesis_flow.core.redact import mask
from genesis_flow.importers.records import Filters
from genesis_flow.importers.sources import open_source
from genesis_flow.importers.verify import verify
from genesis_flow.importers.verify.compare import Outcome
from genesis_flow.importers.verify.opening import workspaces_said
from genesis_flow.importers.verify.target import Names, Target
from genesis_flow.importers.verify.wanted import Wanted
from genesis_flow.importers.workspaces import are_kept, target_workspace
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.schema_check import compare
from genesis_flow.stores.areas import DECLARED

# The exit code when all that can be compared is equal, and something is named besides.
INCOMPLETE = 3
SHOWN = 20
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class Verification:
    source: str
    target: str
    outcome: Outcome
    # What cannot be said of the source, since nothing was imported from it into this target.
    imported: bool
    workspace: str = DEFAULT_WORKSPACE_NAME

    @property
    def equal(self) -> bool:
        return self.outcome.equal

    @property
    def exit_code(self) -> int:
        """0: all of the source is there, and nothing is left to say; 3: something is, though all is equal."""
        outcome = self.outcome
        if not self.equal:
            return 1
        return INCOMPLETE if outcome.unreadable or outcome.left_out or outcome.added else 0

    def plain(self) -> dict[str, Any]:
        outcome = self.outcome
        return {
            "source": self.source,
            "target": self.target,
            "workspace": self.workspace,
            "equal": self.equal,
            "source_checksum": outcome.source_checksum,
            "target_checksum": outcome.target_checksum,
            "counts": {
                kind: {"source": count.source, "target": count.target, "different": count.different}
                for kind, count in outcome.counts.items()
            },
            "differences": [found._asdict() for found in outcome.differences],
            "differences_in_all": outcome.different,
            "unreadable": [trouble._asdict() for trouble in outcome.unreadable],
            "unreadable_in_all": len(outcome.unreadable),
            "left_out": [trouble._asdict() for trouble in outcome.left_out],
            "left_out_in_all": len(outcome.left_out),
            "added": [trouble._asdict() for trouble in outcome.added],
            "added_in_all": len(outcome.added),
            "damaged": [trouble._asdict() for trouble in outcome.damaged],
        }

    def lines(self) -> list[str]:
        outcome = self.outcome
        place = [] if self.workspace == DEFAULT_WORKSPACE_NAME else [f"workspace {self.workspace}"]
        lines = [*place, f"{'':<26} {'source':>12} {'target':>12} {'different':>10}"]
        lines += [
            f"{kind:<26} {count.source:>12,} {count.target:>12,} {count.different:>10,}"
            for kind, count in outcome.counts.items()
        ]
        lines.append(
            f"{'checksum':<26} {outcome.source_checksum[:12]:>12} {outcome.target_checksum[:12]:>12}"
        )
        for found in outcome.differences[:SHOWN]:
            where = f"{found.kind} {found.id}" + (f", {found.field}" if found.field else "")
            lines.append(f"DIFFERS  {where}: source {_short(found.source)}, target {_short(found.target)}")
        if (more := outcome.different - SHOWN) > 0:
            lines.append(f"         and {more:,} more differences")
        named = {
            "DAMAGED ": outcome.damaged,
            "UNREAD  ": outcome.unreadable,
            "LEFT OUT": outcome.left_out,
            "ADDED   ": outcome.added,
        }
        for name, troubles in named.items():
            lines += [f"{name} {each.kind} {each.where}: {each.reason}" for each in islice(troubles, SHOWN)]
            if len(troubles) > SHOWN:
                lines.append(f"         and {len(troubles) - SHOWN:,} more")
        return [*lines, self._verdict()]

    def _verdict(self) -> str:
        outcome = self.outcome
        if not self.equal:
            hint = "" if self.imported else " Nothing was imported from this source into this target so far."
            return f"The target differs from the source.{hint}"
        but = [
            f"{what} ({len(troubles):,})"
            for what, troubles in (
                ("what cannot be read of the source", outcome.unreadable),
                ("what of the source the target has no place for", outcome.left_out),
                ("what only the target has", outcome.added),
            )
            if troubles
        ]
        if not but:
            return "The target has all that the source has, and it is the same."
        told = f"{', '.join(but[:-1])} and {but[-1]}" if len(but) > 1 else but[0]
        if outcome.unreadable or outcome.left_out:
            return f"The target has the rest of the source, and it is the same. Named above: {told}."
        return f"The target has all that the source has, and it is the same. Named above: {told}."


def verify_import(
    config: MigrateConfig,
    source_uri: str,
    filters: Filters,
    report: Callable[[str, int], None] | None = None,
) -> Verification:
    """Compare a source with what the target has of it in one workspace; writes nothing."""
    wanted = Wanted(filters.experiments, filters.since)
    return _verified(config, source_uri, wanted, target_workspace(), None, report)


def verify_parts(
    config: MigrateConfig,
    source_uri: str,
    filters: Filters,
    report: Callable[[str, int], None] | None = None,
) -> list[Verification]:
    """Compare workspace by workspace where they are kept."""
    said = workspaces_said(source_uri) if are_kept() else None
    if said is None:
        return [verify_import(config, source_uri, filters, report)]
    return [
        _verified(
            config, source_uri, Wanted(filters.experiments, filters.since, name), name, said[name], report
        )
        for name in sorted(said)
    ]


def _verified(
    config: MigrateConfig,
    source_uri: str,
    wanted: Wanted,
    workspace: str,
    said: dict[str, str] | None,
    report: Callable[[str, int], None] | None,
) -> Verification:
    source = open_source(source_uri)
    name = source.name
    source.close()
    with opened(config, creates=False) as connected:
        journals = connected.db[f"{config.settings.prefix}import_journals"]
        journal = journals.find_one({"source": name, "workspace": workspace})
        target = Target(connected.db, config.settings.prefix, workspace, _names(journal or {}))
        try:
            outcome = verify(source_uri, target, wanted, report)
        finally:
            target.close()
        if said is not None and workspace != DEFAULT_WORKSPACE_NAME:
            kept = connected.db[f"{config.settings.prefix}workspaces"].find_one({"_id": workspace})
            if kept is None:
                outcome.damaged.add("workspace", workspace, "the target has no such workspace")
            elif different := [key for key in said if kept.get(key) != said[key]]:
                outcome.damaged.add(
                    "workspace", workspace, f"it says something else in {', '.join(different)}"
                )
        # Without its indexes a target is slow, and names are not kept from being given twice.
        for found in compare(
            connected.db, config.settings.prefix, DECLARED, portable=config.settings.portable
        ):
            if found.kind in ("missing", "different", "unusable"):
                outcome.damaged.add("index", found.what, found.detail)
    return Verification(mask(name), config.where, outcome, journal is not None, workspace)


def _names(journal: dict[str, Any]) -> Names:
    return Names(
        experiments=journal.get("experiments") or {},
        models={unquote(key): name for key, name in (journal.get("models") or {}).items()},
        names=journal.get("names") or {},
        questions={unquote(key): made for key, made in (journal.get("questions") or {}).items()},
        journal=journal.get("_id", ""),
        joined=frozenset(each["_id"] for each in journal.get("merged") or () if not each.get("pristine")),
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"
