"""What a driver's error says, without what is of no use to a person: topologies, sessions, whole commands."""

import re

from genesis_flow.core.redact import mask

# The text from these on repeats the server's reply, the driver's view of the servers, or how it counts time.
_REPETITIONS = (", full error:", ", Timeout:", ", Topology Description:", ", remaining timeout:")
_TIMEOUTS = re.compile(r" ?\(configured timeouts: [^)]*\)")
# Of a refusal the server repeats the command that was sent; its name says enough.
_COMMAND = re.compile(r"(execute command) \{ *(\w+):.*\}", re.DOTALL)
_ERRNO = re.compile(r"\[Errno (-?\d+)\] ")


def plain_text(error: Exception) -> str:
    """A clause that may stand in a sentence, its passwords masked; the whole is in the chain of the cause."""
    text = _written_failure(error) or str(error)
    for repetition in _REPETITIONS:
        text = text.split(repetition)[0]
    text = _TIMEOUTS.sub("", text)
    text = _COMMAND.sub(r"\1 \2", text)
    return mask(" ".join(text.split()).rstrip(". "))


def error_numbers(text: str) -> list[int]:
    """The system's error numbers that a driver's message holds."""
    return [int(number) for number in _ERRNO.findall(text)]


def _written_failure(error: Exception) -> str | None:
    """Of a bulk write, whose own words are that errors occurred, the first of them."""
    details = getattr(error, "details", None)
    if not isinstance(details, dict):
        return None
    failures = [*(details.get("writeErrors") or []), *(details.get("writeConcernErrors") or [])]
    return next((str(failure["errmsg"]) for failure in failures if failure.get("errmsg")), None)
