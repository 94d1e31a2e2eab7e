"""What areas declare: every collection is found, and no two areas are in each other's way."""

from collections import defaultdict

import pytest

from genesis_flow.documents.declared import declared_collections
from genesis_flow.stores.areas import AREAS, DECLARED


def test_every_declared_collection_is_found() -> None:
    found = list(declared_collections())
    assert set(DECLARED) <= set(found)
    assert all(declared.Settings.name for declared in found)


@pytest.mark.parametrize("store", ["tracking", "registry"])
def test_no_area_overrides_what_another_has(store: str) -> None:
    """A store is all of its areas: of two equal names, private ones too, one would hide the other."""
    owners: dict[str, list[str]] = defaultdict(list)
    for area in AREAS:
        for part in getattr(area, store):
            for name in vars(part):
                if not name.startswith("__"):
                    owners[name].append(part.__name__)
    assert {name: parts for name, parts in owners.items() if len(parts) > 1} == {}
