"""Which part of a source a verification is about: the filters of the command."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    experiments: tuple[str, ...] = ()  # ids or names
    from_time: int | None = None  # milliseconds
    workspace: str | None = None  # all of them without one

    @property
    def is_default(self) -> bool:
        """Whether it is about what belongs to no workspace, too."""
        return self.workspace in (None, "default")

    def experiment(self, experiment_id: str, name: str | None) -> bool:
        return not self.experiments or experiment_id in self.experiments or name in self.experiments

    def since(self, began: int | None) -> bool:
        """Whether something began since then. An import also brings what changed since: that is not asked."""
        return self.from_time is None or (began or 0) >= self.from_time
