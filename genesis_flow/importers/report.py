"""The outcome of an import for people and for programs."""

from typing import Any

from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from genesis_flow.importers.engine import Outcome
from genesis_flow.importers.records import Problem
from genesis_flow.importers.rollback import RolledBack
from genesis_flow.migrate.batches import span

_NAMED = 20
# Analyses do not write; what writing takes is estimated from what MongoDB took elsewhere.
_BYTES_WRITTEN_A_SECOND = 25_000_000


def lines_of(outcome: Outcome) -> list[str]:
    """The summary table, and what was left out."""
    stats = outcome.stats
    head = "would be imported" if outcome.analyzed else "imported"
    lines = [f"{outcome.source} -> {outcome.target}"]
    if outcome.workspace != DEFAULT_WORKSPACE_NAME:
        lines.append(f"workspace: {outcome.workspace}")
    if not outcome.analyzed:
        lines.append(f"journal: {outcome.journal}")
    lines += ["", f"{'kind':<22} {'read':>14} {'left out':>12}"]
    for kind in sorted(stats.read):
        lines.append(f"{kind.replace('_', ' '):<22} {stats.read[kind]:>14,} {stats.skipped[kind] or '-':>12}")
    if stats.unchanged_units:
        lines.append(
            f"{stats.unchanged_units:,} of {stats.units:,} units are as they were when last imported."
        )
    changed = sum(stats.written.values())
    if not outcome.analyzed:
        lines.append(f"{changed:,} documents were made or changed.")
    lines += ["", *_times(outcome)]
    for table, count in sorted(outcome.unsupported.items()):
        rows = f"{count:,} row{'' if count == 1 else 's'}"
        lines.append(f"left out: table {table}, {rows} (the target has no place for them yet)")
    lines += outcome.notes
    lines += _listed("conflict", outcome.conflicts, len(outcome.conflicts))
    lines += _listed("problem", outcome.first_problems, outcome.problems)
    if outcome.complete:
        lines.append(f"Everything {head}.".replace("Everything imported", "Everything is imported"))
    return lines


def _times(outcome: Outcome) -> list[str]:
    stats = outcome.stats
    total = stats.reading + stats.converting + stats.writing
    shares = ", ".join(
        f"{name} {100 * part / total:.0f}%" if total else f"{name} -"
        for name, part in (
            ("reading", stats.reading),
            ("converting", stats.converting),
            ("writing", stats.writing),
        )
    )
    text = f"{span(outcome.seconds)}; {stats.bytes / 1e6:,.1f} MB of documents"
    if stats.points:
        text += f"; {stats.points / max(outcome.seconds, 1e-9):,.0f} points/s"
    if outcome.analyzed:
        return [f"{text}; an import takes about {span(estimated_seconds(outcome))}"]
    return [f"{text}; work: {shares} (writing goes on beside the rest)"]


def estimated_seconds(outcome: Outcome) -> float:
    """How long an import may take, from an analysis, which does all of it but the writing."""
    return max(outcome.seconds, outcome.stats.bytes / _BYTES_WRITTEN_A_SECOND)


def _listed(what: str, some: list[Problem], count: int) -> list[str]:
    if not count:
        return []
    lines = ["", f"{count:,} {what}{'' if count == 1 else 's'}:"]
    lines += [f"  {each.kind} {each.where}: {each.reason}" for each in some[:_NAMED]]
    if count > _NAMED:
        lines.append(f"  ... and {count - _NAMED:,} more (--report FILE lists all of them)")
    return lines


def plain_problem(problem: Problem) -> dict[str, Any]:
    return {
        "kind": problem.kind,
        "where": problem.where,
        "reason": problem.reason,
        "size": problem.size,
    }


def plain_of(outcome: Outcome) -> dict[str, Any]:
    report: dict[str, Any] = {
        "source": outcome.source,
        "target": outcome.target,
        "workspace": outcome.workspace,
        "journal": None if outcome.analyzed else outcome.journal,
        "analyzed": outcome.analyzed,
        "elapsed_seconds": round(outcome.seconds, 3),
        **outcome.stats.plain(),
        "problem_count": outcome.problems,
        "problems": [plain_problem(each) for each in outcome.first_problems],
        "conflicts": [plain_problem(each) for each in outcome.conflicts],
        "unsupported": outcome.unsupported,
        "notes": outcome.notes,
    }
    if outcome.analyzed:
        report["estimated_seconds"] = round(estimated_seconds(outcome), 1)
    return report


def rollback_lines(done: RolledBack) -> list[str]:
    lines = [f"{done.journal} ({done.source}) is rolled back."]
    lines += [f"removed {counted(count, name)}" for name, count in sorted(done.removed.items())]
    if not done.removed:
        lines.append("There was nothing to remove.")
    lines += _listed("thing left in place", done.kept, len(done.kept))
    if done.changed:
        lines.append("What was changed stays; --force removes it all the same.")
    return lines


def counted(count: int, name: str) -> str:
    """``3 model versions``, ``1 model version`` for a collection's name."""
    words = name.replace("_", " ")
    return f"{count:,} {words.removesuffix('s') if count == 1 else words}"
