"""How much is done: a short form in every run, the long one with GENESIS_FLOW_LONG=1."""

import os

SOAK = bool(os.environ.get("GENESIS_FLOW_LONG"))


def amount(short: int, long: int) -> int:
    return long if SOAK else short
