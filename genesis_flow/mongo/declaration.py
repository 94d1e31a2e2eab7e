"""What an area is: its documents, and the classes whose methods it gives to the stores."""

from dataclasses import dataclass

from genesis_flow.documents.declared import Declared
from genesis_flow.mongo.operation import Area


@dataclass(frozen=True, slots=True)
class AreaDeclaration:
    """Everything that the rest of the package has to know of an area. ``stores/areas.py`` lists them all."""

    name: str
    documents: tuple[type[Declared], ...] = ()
    tracking: tuple[type[Area], ...] = ()
    """What the tracking store is joined from."""
    training: tuple[type[Area], ...] = ()
    """What of this a program calls that only trains: the rest is imported when it is first asked for."""
    registry: tuple[type[Area], ...] = ()
    """What the model registry store is joined from."""
