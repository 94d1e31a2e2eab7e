"""Waits whose bounds only guard against hanging: a busy machine may stand still for ten seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException

T = TypeVar("T")

PATIENCE_SECONDS = 150
_MISSED = ("DEADLINE_EXCEEDED", "TEMPORARILY_UNAVAILABLE")


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """What a store of a short deadline answers, made again and again where it misses that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await call()
        except MlflowException as error:
            if error.error_code not in _MISSED or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0)


def answered_blocking(call: Callable[[], T]) -> T:
    """What a blocking store of a short deadline answers, in the same way."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except MlflowException as error:
            if error.error_code not in _MISSED or time.monotonic() > deadline:
                raise
