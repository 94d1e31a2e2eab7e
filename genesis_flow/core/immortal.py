"""Objects that a process must never free, not even at its end."""

import ctypes


def immortalize(thing: object) -> None:
    """Keep ``thing``, and all that it refers to, until the process is gone.

    For what a forked child inherits of its parent's event loop. A reference in a module is not enough:
    Python drops those when it ends, and tasks of a loop that never ran here would then be destroyed while
    they are pending, each with a traceback on stderr.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
