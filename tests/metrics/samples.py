"""Metrics as a scraper reads them."""

from collections.abc import Iterable

import requests
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.patience import PATIENCE_SECONDS


class Samples:
    """The samples of one scrape, by name and labels."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = [*families]
        self._all = [sample for family in self.families for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self._all}

    def values(self, name: str, **labels: str) -> list[float]:
        """Of all series that have these labels."""
        return [
            sample.value
            for sample in self._all
            if sample.name == f"genesis_flow_{name}" and labels.items() <= sample.labels.items()
        ]

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.values(name, **labels))

    def label_values(self, label: str) -> set[str]:
        return {sample.labels[label] for sample in self._all if label in sample.labels}

    @property
    def text(self) -> str:
        return repr(self._all)


def scraped(address: str) -> Samples:
    answer = requests.get(address, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200, answer.text
    return Samples(text_string_to_metric_families(answer.text))
