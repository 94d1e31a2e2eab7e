"""Files of a tree: what they hold, or why they cannot be read.

Links are never followed, since they lead to loops and out of the tree, and only regular files are opened:
whoever opens a pipe waits for its writer.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from genesis_flow.core.numbers import INT64
from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import Body, Problem

META = "meta.yaml"

_LINE = re.compile(rb"([A-Za-z_]\w*): ?(.*)")
_HEX = re.compile(rb"[0-9a-f]{32}")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
# Plain text that YAML takes for nothing else: begins like a word, a path or a URI.
_PLAIN = re.compile(rb"[A-Za-z/][\w./@+-]*(?::/[\w./@+-]*)?")
# No quote, no escape, no line to be folded.
_QUOTED = re.compile(rb"'[!-&(-~]*'")
_WORDS: dict[bytes, Any] = {b"null": None, b"": None, b"''": "", b"[]": [], b"{}": {}}
_NOT_TEXT = {b"true", b"false", b"yes", b"no", b"on", b"off", b"y", b"n", b"null"}


LINK = "it is a symbolic link, which is not followed"
STRANGE = "it is no regular file"
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Damaged(Exception):
    """Something cannot be read; the message says why, in a few words."""


def read_text(path: str) -> str:
    return decode(read_bytes(path))


def read_bytes(path: str) -> bytes:
    with open_file(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise Damaged(f"it cannot be read ({error.strerror})") from error


def open_file(path: str) -> BinaryIO:
    try:
        number = os.open(path, _READ)
    except FileNotFoundError as error:
        raise Damaged("it is missing") from error
    except OSError as error:
        # A socket cannot be opened, nor can a link with these flags.
        reason = oddity(os.lstat(path).st_mode) if error.errno in (errno.ELOOP, errno.ENXIO) else None
        raise Damaged(reason or f"it cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise Damaged(STRANGE)
    return os.fdopen(number, "rb")


def oddity(mode: int) -> str | None:
    """What is wrong with a thing in a folder, unless it is a folder or a regular file itself."""
    if stat.S_ISLNK(mode):
        return LINK
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else STRANGE


def decode(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged(f"it is not UTF-8 (byte {error.start})") from error


def read_meta(path: str) -> dict[str, Any]:
    """The fields of a YAML file; flat ones, as MLflow writes them, without the YAML parser."""
    content = read_bytes(path)
    if not content.strip():
        raise Damaged("it is empty")
    fields = _flat(content)
    if fields is not None:
        return fields
    try:
        loaded = yaml.load(decode(content), Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise Damaged(f"it is not valid YAML{where}") from error
    except ValueError as error:
        raise Damaged(f"it holds a value that cannot be read ({error})") from error
    if not isinstance(loaded, dict):
        raise Damaged("it does not hold fields")
    return loaded


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _flat(content: bytes) -> dict[str, Any] | None:
    """The fields, if each is a simple value on a line of its own; else None."""
    fields: dict[str, Any] = {}
    for line in content.split(b"\n"):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        key, text = match.groups()
        if text in _WORDS:
            value: Any = _WORDS[text]
            fields[key.decode()] = type(value)() if isinstance(value, list | dict) else value
        elif _NUMBER.fullmatch(text):
            fields[key.decode()] = int(text)
        elif _QUOTED.fullmatch(text):
            fields[key.decode()] = text[1:-1].decode()
        elif _is_text(text):
            fields[key.decode()] = text.decode()
        else:
            return None
    return fields


def _is_text(value: bytes) -> bool:
    """Whether YAML takes it for text, too: a word, a path, a URI, or an id of MLflow's."""
    if _PLAIN.fullmatch(value):
        return value.lower() not in _NOT_TEXT
    return bool(_HEX.fullmatch(value)) and not value.isdigit() and value[:2] not in (b"0b", b"0x")


# Gets the path of something that is neither a folder nor a regular file, and the reason to leave it out.
Odd = Callable[[str, str], None]


def folders(path: str, odd: Odd | None = None) -> list[str]:
    """The names of the folders in a folder, in order; none if it is missing."""
    names = []
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False):
            names.append(entry.name)
        elif odd is not None and (reason := _oddity(entry)):
            odd(entry.path, reason)
    return names


def files(path: str) -> Iterator["os.DirEntry[str]"]:
    """All files below a folder, in the order of their names, odd ones too; nothing if it is missing."""
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False):
            yield from files(entry.path)
        else:
            yield entry


def _entries(path: str) -> list["os.DirEntry[str]"]:
    """What is in a folder, in the order of the names; nothing if it is missing or a file."""
    try:
        reason = oddity(os.lstat(path).st_mode)
        if reason:
            raise Damaged(reason)
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Damaged(f"it cannot be listed ({error.strerror})") from error


def _oddity(entry: "os.DirEntry[str]") -> str | None:
    try:
        return oddity(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None  # gone meanwhile


def below(folder: str, *names: str) -> str:
    """The path of what is named in a folder, without any step out of it."""
    path = folder
    for name in names:
        if name in ("", ".", "..") or os.path.basename(name) != name:
            raise Damaged(f"{name!r} is not the name of a folder")
        path = os.path.join(path, name)
        if os.path.islink(path):
            raise Damaged(LINK)
    return path


def key_of(path: str, folder: str) -> str:
    """The key that a file below a folder stands for: keys with slashes are files in folders."""
    key = path[len(folder) + 1 :].replace(os.sep, "/")
    try:
        key.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Damaged("its name is not UTF-8") from error
    return key


def read_values(folder: str, kind: str, problems: list[Problem]) -> dict[str, str]:
    """A folder of files that are named after keys and hold a value; what cannot be read is noted."""
    values: dict[str, str] = {}
    try:
        for entry in files(folder):
            try:
                values[key_of(entry.path, folder)] = read_text(entry.path)
            except Damaged as damage:
                problems.append(Problem(kind, shown(entry.path), str(damage), size_of(entry.path)))
    except Damaged as damage:
        problems.append(Problem(kind, shown(folder), str(damage)))
    return values


def shown(path: str | Path) -> str:
    """A path that can be printed, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def size_of(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def whole(fields: dict[str, Any], *names: str, required: bool = False) -> int | None:
    """A whole number under the first of these names that has one."""
    for name in names:
        value = fields.get(name)
        if value is None or isinstance(value, bool):
            continue
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise Damaged(f"{name} is {value!r}, not a whole number") from error
        if number not in INT64:
            raise Damaged(f"{name} is {value!r}, which does not fit 64 bits")
        return number
    if required:
        raise Damaged(f"{names[0]} is missing")
    return None


def text(fields: dict[str, Any], *names: str) -> str | None:
    """A text under the first of these names that has one; numbers that YAML made are text again."""
    for name in names:
        value = fields.get(name)
        if value is not None and value != "":
            return value if isinstance(value, str) else str(value)
    return None


_BY_LETTER: dict[str, Callable[..., Any]] = {"t": text, "i": whole}


def told(kind: str, fields: dict[str, Any]) -> Body:
    """What a file says under the names that bodies have, too."""
    known = KIND[kind]
    return {
        column.field: _BY_LETTER[column.letter.lower()](fields, column.field)
        for column in known.columns
        if column.field in known.told
    }
