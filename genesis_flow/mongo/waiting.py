"""Work of the client that is done while it would wait for the server."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

# After so many turns of the loop the driver has sent a command that a task has just begun.
_TURNS = 3


async def meanwhile(asked: Coroutine[Any, Any, S], make: Callable[[], T]) -> tuple[S, T]:
    """What the server answers, and what ``make`` makes until then, which needs no answer."""

    async def made() -> T:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return make()

    answer, other = await asyncio.gather(asked, made())
    return answer, other
