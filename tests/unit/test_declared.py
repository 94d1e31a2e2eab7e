"""What is declared is found, also where several documents share a base."""

from genesis_flow.documents.declared import declared_collections
from genesis_flow.stores.areas import DECLARED


def test_every_declared_collection_is_found() -> None:
    found = list(declared_collections())
    assert set(DECLARED) <= set(found)
    assert all(declared.Settings.name for declared in found)
