"""Tables, curves, numbers and times as text, cut to the width of a terminal."""

import math
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime

from genesis_flow.core.redact import mask

_BARS = "▁▂▃▄▅▆▇█"
_GAP = 2
_NARROWEST = 40
_CELL = 40


def terminal_width() -> int | None:
    """The width to fit, or None where nobody looks: a pipe gets everything."""
    return max(_NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def draws_curves() -> bool:
    """Whether the output can show the characters of a curve."""
    try:
        _BARS.encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeError):
        return False
    return True


def plain(text: object) -> str:
    """One line that does nothing to a terminal, whatever was logged.

    Masked here, because half of a URI that was cut is not known as one.
    """
    line = " ".join(mask(str(text)).split())
    return "".join(character if character.isprintable() else "?" for character in line)


def columns_of(text: str) -> int:
    """How many columns a terminal needs for it."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def cut(text: str, width: int | None) -> str:
    """The beginning of ``text``, if it is too wide."""
    if width is None or columns_of(text) <= width:
        return text
    while text and columns_of(text) > width - 2:
        text = text[:-1]
    return text + ".."


def curve(values: Sequence[float], width: int) -> str:
    """The course of ``values``: each column is the mean of its share; a point is where there is no number."""
    if len(values) > width:
        values = [
            _mean(values[index * len(values) // width : (index + 1) * len(values) // width])
            for index in range(width)
        ]
    numbers = [value for value in values if math.isfinite(value)]
    if not numbers:
        return "·" * len(values)
    # Halved, because the distance of the greatest numbers is not a number.
    least, reach = min(numbers) / 2, max(numbers) / 2 - min(numbers) / 2
    bars = ""
    for value in values:
        if not math.isfinite(value):
            bars += "·"
        else:
            share = (value / 2 - least) / reach if reach else 0.5
            bars += _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))]
    return bars


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if math.isfinite(value)]
    return sum(value / len(numbers) for value in numbers) if numbers else math.nan


def number(value: float) -> str:
    """Five digits tell runs apart; whole numbers are shown as they are."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.5g}"


def moment(milliseconds: int | None) -> str:
    """In the time zone of the reader."""
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):  # a program may have logged anything
        return str(milliseconds)


def duration(begin: int | None, end: int | None) -> str:
    if begin is None or end is None:
        return ""
    seconds = (end - begin) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {seconds:02d} s"


def table(rows: Sequence[Sequence[str]], width: int | None, *, keeps: int = 1) -> tuple[list[str], int]:
    """Aligned lines of ``rows``, the first of which is the heading, and how many columns found no place.

    The first ``keeps`` columns share the width if need be; the others come as long as there is room.
    """
    sizes = [max(columns_of(row[index]) for row in rows) for index in range(len(rows[0]))]
    if width is not None:
        sizes = [min(size, _CELL) for size in sizes]
        room = width - _GAP * (keeps - 1)
        while sum(sizes[:keeps]) > room:
            widest = max(range(keeps), key=lambda index: sizes[index])
            sizes[widest] -= 1
    used, count = sum(sizes[:keeps]) + _GAP * (keeps - 1), keeps
    while count < len(sizes) and (width is None or used + _GAP + sizes[count] <= width):
        used += _GAP + sizes[count]
        count += 1
    limits = sizes[:count] if width is not None else [None] * count
    lines = []
    for row in rows:
        cells = [cut(cell, limit) for cell, limit in zip(row, limits, strict=False)]
        padded = [cell + " " * (size - columns_of(cell)) for cell, size in zip(cells, sizes, strict=False)]
        lines.append((" " * _GAP).join(padded).rstrip())
    return lines, len(sizes) - count
