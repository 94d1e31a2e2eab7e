"""Amounts of what there is, by workspace, experiment, user and day."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

# In the order in which they are reported. What is deleted and not yet removed for good counts, too, and is
# told apart. Points and metrics are those of the runs; a metric is one name in one run.
MEASURES = (
    *("runs", "deleted_runs", "metrics", "points", "traces", "trace_bytes"),
    *("models", "deleted_models", "registered_models", "model_versions", "prompts", "prompt_versions"),
)

DAY = 86_400_000

Amounts = Counter[str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something counts; what it has none of is None."""

    workspace: str | None
    experiment: int | None
    user: str | None
    """None for what has no user; empty if nobody was named."""
    day: int | None
    """Days since 1970, in UTC."""


@dataclass
class Tally:
    """Sums over everything that was counted, as few as there are experiments, users and days."""

    total: Amounts = field(default_factory=Counter)
    workspaces: "defaultdict[str | None, Amounts]" = field(default_factory=lambda: defaultdict(Counter))
    experiments: "defaultdict[int, Amounts]" = field(default_factory=lambda: defaultdict(Counter))
    users: "defaultdict[str, Amounts]" = field(default_factory=lambda: defaultdict(Counter))
    days: "defaultdict[int | None, Amounts]" = field(default_factory=lambda: defaultdict(Counter))
    pairs: "defaultdict[tuple[str, int], Amounts]" = field(default_factory=lambda: defaultdict(Counter))
    """By user and experiment."""

    def add(self, place: Place, amounts: Mapping[str, int]) -> None:
        given = {name: amount for name, amount in amounts.items() if amount}
        for sums in (self.total, self.workspaces[place.workspace], self.days[place.day]):
            sums.update(given)
        if place.user is not None:
            self.users[place.user].update(given)
        if place.experiment is not None:
            self.experiments[place.experiment].update(given)
            self.pairs[place.user or "", place.experiment].update(given)
