"""The keeper: runs mongod for one directory, and stops it when nobody uses it.

A program of the standard library alone, started detached as ``python -I -S keeper.py DIRECTORY MONGOD SOCKET
LINGER``. It outlives whoever started it. Users hold a shared lock on users.lock, which the kernel releases
however they end; when the keeper gets that lock alone, nobody is left. SIGTERM makes it stop mongod at once.
"""

import contextlib
import fcntl
import json
import os
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

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)  # noqa: PTH118 - pathlib would cost the keeper memory

    def run(self) -> int:
        # Whoever started us may have ignored or blocked signals, and we would inherit that.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, self._stop_soon)  # before there is a lock by which others know of us
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if not self._be_the_one():
            return 0
        orphan = self._last_pid()
        self._write_state(state="starting", pid=orphan)  # what the file says from here on is ours
        self._end_orphan(orphan)
        try:
            return self._run_mongod()
        except OSError as error:  # mongod is no program for this machine, or there is no room for its files
            self._kill()
            self._write_state(
                state="failed", reason=f"{error.strerror} ({error.filename})", log=self._log_end()
            )
            return 1

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
        while not (self.stopping or self._is_displaced()):
            self._rotate_log()
            started = time.monotonic()
            self._start()
            code = self._watch()
            if code is None or self._is_displaced():
                return 0
            crashes = crashes + 1 if time.monotonic() - started < QUICK_SECONDS else 1
            if crashes >= MOST_CRASHES:
                self._write_state(
                    state="failed", reason=f"mongod ended with exit code {code}", log=self._log_end()
                )
                return 1
            time.sleep(0.2 * crashes)
        return 0

    def _stop_soon(self, *_: object) -> None:
        self.stopping = True

    def _is_displaced(self) -> bool:
        """Whether the directory was removed or moved away: what is at its path now belongs to others."""
        try:
            found = os.stat(self.path("keeper.lock"))  # noqa: PTH116
        except FileNotFoundError:
            return True
        ours = os.fstat(self.lock)
        return (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino)

    def _start(self) -> None:
        with open(self.path("mongod.out"), "wb") as output:  # noqa: PTH123
            self.process = subprocess.Popen(
                [
                    self.mongod,
                    *("--dbpath", self.path("db"), "--logpath", self.path("mongod.log"), "--logappend"),
                    # One socket that only its owner may open, and no port.
                    *("--bind_ip", self.socket, "--nounixsocket", "--filePermissions", "0700"),
                    *("--replSet", "genesis", "--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"),
                    # Without these an empty database takes 300 MB of journal files.
                    *("--wiredTigerEngineConfigString", "log=(file_max=8MB,prealloc=false)"),
                    *("--setParameter", "diagnosticDataCollectionEnabled=false"),
                    # Nobody reads the past, of which a busy database otherwise keeps five minutes on disk.
                    *("--setParameter", "minSnapshotHistoryWindowInSeconds=0"),
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
                time.sleep(LOOK_SECONDS)  # process.wait() with a timeout would wake up 20 times a second
                code = self.process.poll()
                if code is not None:
                    return code
                if self._is_displaced():
                    self._kill()  # a clean end would remove the socket, which may be a successor's by now
                    return None
                if self.stopping:
                    break
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

    def _last_pid(self) -> "int | None":
        """The mongod of the last keeper, if that one did not end as it should."""
        try:
            with open(self.path("server.json")) as file:  # noqa: PTH123
                return int(json.load(file)["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _end_orphan(self, pid: "int | None") -> None:
        """Stop the mongod that a killed keeper left, and wait for its end.

        Were it still ending while its successor starts, it would remove the successor's socket.
        """
        if pid is None:
            return
        deadline = time.monotonic() + STOP_SECONDS
        while self._is_our_mongod(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(LOOK_SECONDS)

    def _is_our_mongod(self, pid: int) -> bool:
        """Whether ``pid`` runs mongod on our data: a number alone may by now be another program's."""
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
                command = file.read()
        except OSError:
            if sys.platform == "linux":
                return False
            listed = ["ps", "-p", str(pid), "-o", "args="]
            command = subprocess.run(listed, capture_output=True, check=False).stdout
        return os.fsencode(self.path("db")) in command

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
        known = {"keeper": os.getpid(), "socket": self.socket, "time": time.time()}
        if self.process is not None:
            known["pid"] = self.process.pid
        new = self.path("server.json.new")
        with open(new, "w") as file:  # noqa: PTH123
            json.dump({**known, **state}, file)
        os.replace(new, self.path("server.json"))  # noqa: PTH105


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
