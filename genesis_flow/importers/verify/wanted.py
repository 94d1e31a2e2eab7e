"""Which part of a source a verification is about: the filters of the command."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wanted:
    experiments: tuple[str, ...] = ()  # ids or names
    from_time: int | None = None  # milliseconds

    def experiment(self, experiment_id: str, name: str | None) -> bool:
        return not self.experiments or experiment_id in self.experiments or name in self.experiments

    def since(self, began: int | None, ended: int | None, path: Path | None = None) -> bool:
        """Whether something is from then on; what has not ended may have gone on."""
        if self.from_time is None or ended is None:
            return True
        return max(began or 0, ended) >= self.from_time
