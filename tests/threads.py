"""A blocking store where tests await one."""

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from genesis_flow import MongoDBStore

MOST_AT_ONCE = 64


class InThreads:
    """A blocking store in the place of an asynchronous one: each call runs in a thread."""

    def __init__(self, uri: str, artifacts: str) -> None:
        self._store = MongoDBStore(uri, artifacts)
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="calls")
        self.settings = self._store._settings

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, getattr(self._store, name))

    async def close(self) -> None:
        await self._call(self._store.close)
        self._threads.shutdown()

    async def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(method, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
