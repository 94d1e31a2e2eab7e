"""Blocking code in the middle of an operation, such as MLflow calls that use a store of their own."""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from genesis_flow.mongo.operation import _inside

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a thread of its own, where calls of any store are public calls again.

    The thread sees the caller's context variables (the workspace, the deadline). It must not take itself
    for a part of the operation that waits for it: another store would then not open its database. And it is
    none of the loop's few threads: enough such calls would hold all of them and wait for work that needs one.
    """
    context = contextvars.copy_context()
    context.run(_inside.set, None)
    call = functools.partial(context.run, functools.partial(function, *args, **kwargs))
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="genesis-flow-blocking")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, call)
    finally:
        thread.shutdown(wait=False)
