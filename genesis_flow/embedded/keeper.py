"""The keeper: runs mongod for one directory, and stops it when nobody uses it.

A program of the standard library alone, started detached as ``python -I -S keeper.py DIRECTORY MONGOD SOCKET
LINGER``. It outlives whoever started it. Users hold a shared lock on users.lock, which the kernel releases
however they end; when the keeper gets that lock alone, nobody is left. SIGTERM makes it stop mongod at once.
It kills mongod when the directory is removed: what would be acknowledged from then on would be lost.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time

LOOK_SECONDS = 0.25
LOCK_SECONDS = 0.5
STOP_SECONDS = 60
# After so many ends of mongod within so many seconds of its start, starting it again is no help.
MOST_CRASHES = 5
QUICK_SECONDS = 10
LOG_BYTES = 10 * 1024 * 1024
# A new database takes about 10 MB, and mongod ends where it cannot write.
LEAST_FREE_BYTES = 32 * 1024 * 1024
PR_SET_PDEATHSIG = 1


class Keeper:
    def __init__(self, directory: str, mongod: str, socket: str, linger: float) -> None:
        self.directory = directory
        self.mongod = mongod
        self.socket = socket
        self.linger = linger
        self.lock = -1
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = False
        self.has_data = False
        # Wakes the keeper: a signal of a user, of mongod's end, of a removed file.
        self.bell = -1
        self.state: dict[str, object] = {}
        self.written: object = None
        self.program = ""

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)  # noqa: PTH118 - pathlib would cost the keeper memory

    def run(self) -> int:
        # Our parent may have ignored or blocked signals, and we would inherit that.
        self._hang_bell()
        signal.signal(signal.SIGTERM, self._stop_soon)  # before there is a lock by which others know of us
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if not self._be_the_one():
            return 0
        try:
            orphan = self._last_mongod()
            # The file is ours from here on; the orphan stays in it until it has ended.
            named = zip(("pid", "program", "began"), orphan or (), strict=False)
            self._write_state(state="starting", **dict(named))
            if orphan is not None:
                self._end_orphan(*orphan)
            return self._run_mongod()
        except OSError as error:  # mongod is no program for this machine, or there is no room for our files
            self._kill()
            return self._fail(f"{error.strerror} ({error.filename})")

    def _hang_bell(self) -> None:
        self.bell, rope = os.pipe()
        os.set_blocking(self.bell, False)
        os.set_blocking(rope, False)
        signal.set_wakeup_fd(rope, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGIO):
            signal.signal(number, _ring)

    def _wait(self) -> None:
        """Until the bell rings, or for LOOK_SECONDS: process.wait() would wake up 20 times a second."""
        select.select([self.bell], [], [], LOOK_SECONDS)
        with contextlib.suppress(BlockingIOError):
            os.read(self.bell, 4096)

    def _be_the_one(self) -> bool:
        """Take the keeper's lock. Clients that look for a keeper hold it for an instant too."""
        self.lock = os.open(self.path("keeper.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False  # there is a keeper
                time.sleep(0.01)

    def _run_mongod(self) -> int:
        crashes = 0
        self._watch_files()
        while not (self.stopping or self._is_displaced()):
            self._rotate_log()
            started = time.monotonic()
            self._start()
            code = self._watch()
            if code is None or self._is_displaced():
                break
            if free_bytes(self.directory) < LEAST_FREE_BYTES:
                return self._fail("the disk is full")  # to start it again would be no help
            crashes = crashes + 1 if time.monotonic() - started < QUICK_SECONDS else 1
            if crashes >= MOST_CRASHES:
                return self._fail(f"mongod ended with exit code {code}")
            time.sleep(0.2 * crashes)
        return 0

    def _watch_files(self) -> None:
        """Have the kernel ring when files are removed here, where it can; elsewhere they are looked at."""
        if hasattr(fcntl, "F_NOTIFY"):
            for path in (self.directory, self.path("db")):
                folder = os.open(path, os.O_RDONLY)  # open as long as it is watched: to our end
                with contextlib.suppress(OSError):
                    fcntl.fcntl(folder, fcntl.F_NOTIFY, fcntl.DN_DELETE | fcntl.DN_MULTISHOT)

    def _fail(self, reason: str) -> int:
        # On a full disk even this may not be written; clients see for themselves that it is full.
        with contextlib.suppress(OSError):
            self._write_state(state="failed", reason=reason, log=self._log_end())
        return 1

    def _stop_soon(self, *_: object) -> None:
        self.stopping = True

    def _is_displaced(self) -> bool:
        """Whether the directory was removed or moved away: what is at its path now belongs to others."""
        try:
            theirs = os.stat(self.path("keeper.lock"))  # noqa: PTH116
        except FileNotFoundError:
            return True
        ours = os.fstat(self.lock)
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            return True
        # A removal begins with any file. Of the data this one is there as long as a database is.
        had_data, self.has_data = self.has_data, os.path.exists(self.path("db/WiredTiger"))  # noqa: PTH110
        if had_data and not self.has_data:
            return True
        return self.written is not None and self._seen_state() is None

    def _start(self) -> None:
        with open(self.path("mongod.out"), "wb") as output:  # noqa: PTH123
            self.process = subprocess.Popen(
                [
                    self.mongod,
                    *("--dbpath", self.path("db"), "--logpath", self.path("mongod.log"), "--logappend"),
                    # One socket that only its owner may open, and no port.
                    *("--bind_ip", self.socket, "--nounixsocket", "--filePermissions", "0700"),
                    # Without zlib, by which older versions let strangers read memory (CVE-2025-14847).
                    *("--networkMessageCompressors", "snappy,zstd"),
                    *("--replSet", "genesis", "--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"),
                    # Without these an empty database takes 300 MB of journal files.
                    *("--wiredTigerEngineConfigString", "log=(file_max=8MB,prealloc=false)"),
                    *("--setParameter", "diagnosticDataCollectionEnabled=false"),
                    # Only watches read the past, and a moment of it; a busy database otherwise keeps five
                    # minutes on disk.
                    *("--setParameter", "minSnapshotHistoryWindowInSeconds=5"),
                    # There is no other member that could take over while this one says good-bye.
                    *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                preexec_fn=_die_with_keeper,
            )
        self._write_state(state="running")

    def _watch(self) -> "int | None":
        """Wait until mongod ends by itself (its exit code), or has been stopped for lack of users (None)."""
        assert self.process is not None
        users = os.open(self.path("users.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        idle_since = None
        try:
            while True:
                self._wait()
                code = self.process.poll()
                if code is not None:
                    return code
                if self._is_displaced():
                    # First, or a call may find a keeper and then wait for a mongod that does not come back.
                    fcntl.flock(self.lock, fcntl.LOCK_UN)
                    self._kill()  # a clean end would remove the socket, which may be a successor's by now
                    return None
                if self.stopping:
                    break
                self._keep_state()
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    idle_since = None
                    continue
                idle_since = idle_since or time.monotonic()
                pinned = os.path.exists(self.path("pinned"))  # noqa: PTH110
                if not pinned and time.monotonic() - idle_since >= self.linger:
                    break
                fcntl.flock(users, fcntl.LOCK_UN)
            # Without users the lock is still held: a newcomer waits for the end, then starts anew.
            self._stop()
            return None
        finally:
            os.close(users)

    def _stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._is_displaced():
            return  # what is at these paths by now is a successor's
        for left in (self.socket, self.path("server.json"), self.path("mongod.out")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)  # noqa: PTH108

    def _kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _last_mongod(self) -> "tuple[int, object, object] | None":
        """The mongod of the last keeper, if that one did not end as it should."""
        try:
            with open(self.path("server.json")) as file:  # noqa: PTH123
                found = json.load(file)
            return int(found["pid"]), found.get("program"), found.get("began")
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _end_orphan(self, pid: int, program: object, began: object) -> None:
        """Stop the mongod that a killed keeper left, and wait for its end.

        Were it still ending while its successor starts, it would remove the successor's socket.
        """
        deadline = time.monotonic() + STOP_SECONDS
        while self._is_our_mongod(pid, program, began):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(LOOK_SECONDS)

    def _is_our_mongod(self, pid: int, program: object, began: object) -> bool:
        """Whether it is the process that was noted: a number alone may by now be another program's."""
        process = describe(pid)
        if process is None or process.program != (program or self.mongod):
            return False
        if began is not None and process.began != began:
            return False
        return process.has_arguments("--dbpath", self.path("db"))

    def _rotate_log(self) -> None:
        log = self.path("mongod.log")
        with contextlib.suppress(FileNotFoundError):
            if os.path.getsize(log) > LOG_BYTES:  # noqa: PTH202
                os.replace(log, log + ".1")  # noqa: PTH105

    def _log_end(self) -> str:
        """The last that mongod said: to its log, or before it had one."""
        said = ""
        for name in ("mongod.log", "mongod.out"):
            with contextlib.suppress(OSError), open(self.path(name), errors="replace") as file:  # noqa: PTH123
                said += "".join(file.readlines()[-4:])[-2000:]
        return said

    def _write_state(self, **state: object) -> None:
        known: dict[str, object] = {"keeper": os.getpid(), "socket": self.socket, "time": time.time()}
        if self.process is not None:
            known["pid"] = self.process.pid
            process = describe(self.process.pid)
            if process is not None:
                self.program = process.program
                known |= {"program": process.program, "began": process.began}
        self.state = state
        new = self.path("server.json.new")
        with open(new, "w") as file:  # noqa: PTH123
            json.dump({**known, **state}, file)
        os.replace(new, self.path("server.json"))  # noqa: PTH105
        self.written = self._seen_state()

    def _seen_state(self) -> object:
        with contextlib.suppress(OSError):
            status = os.stat(self.path("server.json"))  # noqa: PTH116
            return status.st_ino, status.st_size, status.st_mtime_ns
        return None

    def _keep_state(self) -> None:
        """Write anew what somebody emptied: nobody could join by it, and a successor finds mongod by it.

        Also what was not so yet: a script may have been the program that became mongod.
        """
        assert self.process is not None
        with contextlib.suppress(OSError):  # if it has just ended, too
            is_script = sys.platform == "linux" and _program(self.process.pid) != self.program
            if is_script or self._seen_state() != self.written:
                self._write_state(**self.state)


class Described:
    """What tells a process from another that got its number."""

    def __init__(self, program: str, began: str, line: str, separator: str) -> None:
        self.program = program
        self.began = began
        self.line = separator + line + separator
        self.separator = separator

    def has_arguments(self, *wanted: str) -> bool:
        """Whether these stand side by side in its command line."""
        return self.separator + self.separator.join(wanted) + self.separator in self.line


def describe(pid: int) -> "Described | None":
    """The process of this number, or None if there is none, or none that we may ask about."""
    try:
        if sys.platform != "linux":
            answers = [_ps(pid, field) for field in ("comm", "lstart", "args")]
            return Described(answers[0], answers[1], answers[2], " ") if all(answers) else None
        folder = f"/proc/{pid}/"
        with open(folder + "cmdline", "rb") as file:  # noqa: PTH123
            line = os.fsdecode(file.read()).removesuffix("\0")
        with open(folder + "stat", "rb") as file:  # noqa: PTH123
            began = file.read().rpartition(b")")[2].split()[19].decode()
        return Described(_program(pid), began, line, "\0")
    except (OSError, IndexError):
        return None


def _program(pid: int) -> str:
    # An upgrade may have put another program in its place meanwhile.
    return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115


def _ps(pid: int, field: str) -> str:
    listed = ["ps", "-p", str(pid), "-o", f"{field}="]
    return os.fsdecode(subprocess.run(listed, capture_output=True, check=False).stdout).strip()


def is_keeper(pid: int, directory: str) -> bool:
    """Whether the process is the keeper of a directory; it may be another installation's."""
    process = describe(pid)
    if process is None:
        return False
    return "/keeper.py" + process.separator + directory + process.separator in process.line


def free_bytes(directory: str) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _ring(*_: object) -> None:
    """Only so that the signal is passed on to the bell."""


def _die_with_keeper() -> None:
    """Where Linux offers it, mongod is stopped when its keeper is killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def detach() -> bool:
    """Leave the starter's session and process tree; False in the process that is to end at once."""
    if os.fork():
        return False
    os.setsid()
    os.chdir("/")
    return True


if __name__ == "__main__":
    directory, mongod, socket, linger = sys.argv[1:]
    if detach():
        os.umask(0o077)
        os._exit(Keeper(directory, mongod, socket, float(linger)).run())
