"""The locks by which keepers and users know of each other; the kernel releases them however these end."""

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def try_lock(file: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked_by_other(file: int) -> bool:
    """Does another open file hold the lock on this one alone?"""
    if not try_lock(file, exclusive=False):
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def is_locked(path: Path) -> bool:
    """Does an open file hold the lock on ``path`` alone? To look so does not disturb others who look."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return is_locked_by_other(file)
    finally:
        os.close(file)


def has_users(path: Path) -> bool:
    """Do other open files share the lock on ``path``? A keeper about to stop the server holds it alone."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return (
            not try_lock(file, exclusive=True)
            and try_lock(file, exclusive=False)
            and not try_lock(file, exclusive=True)
        )
    finally:
        os.close(file)
