"""A tracking store that imports most of itself when it is first asked for it."""

from typing import Any

from genesis_flow.mongo.operation import Area


class Growing(Area):
    """Has what a training calls, and becomes the whole store, as the same object, when it is asked for more.

    Most programs only log, and each would import all areas, and look through what is made of them at its end:
    Python's garbage collector does, several times.
    """

    def __getattr__(self, name: str) -> Any:
        """What this store does not have yet. Python asks here for what it finds nowhere else."""
        if not name.startswith("__"):
            from genesis_flow.stores.joined import AsyncTrackingStore

            if hasattr(AsyncTrackingStore, name):
                # What the other areas begin with; of threads that come here at once, one's counts.
                for field, value in vars(AsyncTrackingStore(self.settings)).items():
                    vars(self).setdefault(field, value)
                self.__class__ = AsyncTrackingStore  # type: ignore[assignment]  # no subclass, but all of it
                return getattr(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
