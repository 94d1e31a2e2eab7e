"""The stores: the areas, joined."""

from importlib import import_module

from genesis_flow.documents.declared import declared_by

# A store that trains has not imported all areas, but what asks for all collections has to find all.
declared_by(lambda: import_module("genesis_flow.stores.areas"))
