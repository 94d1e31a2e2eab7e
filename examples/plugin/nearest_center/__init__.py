"""A framework in place of yours: it predicts the class whose mean is nearest, and knows nothing of MLflow."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

__version__ = "1.0.0"

Point = Sequence[float]


class NearestCenter:
    """Keeps the mean of each class."""

    def __init__(self, power: float = 2.0) -> None:
        self.power = power
        self.centers: dict[str, list[float]] = {}

    def fit(self, points: Sequence[Point], classes: Sequence[str]) -> "NearestCenter":
        for name in sorted(set(classes)):
            own = [point for point, each in zip(points, classes, strict=True) if each == name]
            self.centers[name] = [math.fsum(column) / len(own) for column in zip(*own, strict=True)]
        return self

    def predict(self, points: Sequence[Point]) -> list[str]:
        return [min(self.centers, key=lambda name: self._distance(point, name)) for point in points]

    def score(self, points: Sequence[Point], classes: Sequence[str]) -> float:
        """The share of the points whose class is predicted."""
        hits = sum(map(str.__eq__, self.predict(points), classes))
        return hits / len(classes)

    def save(self, file: Path) -> None:
        file.write_text(json.dumps({"power": self.power, "centers": self.centers}), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "NearestCenter":
        kept = json.loads(file.read_text(encoding="utf-8"))
        model = cls(kept["power"])
        model.centers = kept["centers"]
        return model

    def _distance(self, point: Point, name: str) -> float:
        pairs = zip(point, self.centers[name], strict=True)
        return math.fsum(abs(a - b) ** self.power for a, b in pairs)
