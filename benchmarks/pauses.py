"""What a client does between two calls of a store."""

import time

# Milliseconds of a short training step.
STEP = 2.0


def work(milliseconds: float) -> None:
    """Be busy, not asleep."""
    end = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < end:
        pass
