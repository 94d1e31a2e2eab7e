"""Blocking code in the middle of an operation, such as MLflow calls that use a store of their own."""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from genesis_flow.database.operation import _inside

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a worker thread, where calls of any store are public calls of their own.

    The thread sees the caller's context variables (the workspace, the deadline). It must not take itself
    for a part of the operation that waits for it: another store would then not open its database.
    """
    context = contextvars.copy_context()
    context.run(_inside.set, None)
    call = functools.partial(context.run, functools.partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(None, call)
