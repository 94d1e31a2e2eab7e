"""What children of the tests do with signals, whatever whoever started the tests wanted for them."""

import signal


def heed_interrupts() -> None:
    """For ``preexec_fn``: `nohup` and background jobs ignore SIGINT, and their children would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
