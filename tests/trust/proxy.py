"""A proxy in front of a mongod that loses what a network loses: requests, or the replies to them.

A lost request was never executed, a lost reply was; the client sees the same closed connection. Or, if
``instead`` is set, the same answer in its place, such as the one with which Azure throttles. Or, if it is
``silent``, nothing at all: the connection stays open and swallows whatever else is sent, as one does that a
firewall has forgotten.
"""

import contextlib
import enum
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import bson

_HEADER = struct.Struct("<iiii")
_MSG = 2013
_UPKEEP = {"hello", "isMaster", "ismaster", "ping", "endSessions", "killCursors", "saslStart", "saslContinue"}


@dataclass
class Command:
    name: str
    body: dict[str, Any]
    number: int
    """Which of the commands since the last ``arm`` it is, from 0."""


class Silence(enum.Enum):
    """What a client still gets on a connection that goes silent."""

    NOTHING = "nothing"
    HALF_A_REPLY = "half a reply"


# True when the command, or its reply, is to be lost.
Loses = Callable[[Command], bool]


def _never(command: Command) -> bool:
    return False


@dataclass
class FaultyProxy:
    upstream: int
    port: int = 0
    request_lost: Loses = _never
    reply_lost: Loses = _never
    instead: dict[str, Any] | None = None
    """What the client is told; None closes its connection."""
    silent: Silence | None = None
    """Whether the connection stays open instead, and silent."""
    seen: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _dead: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def dead(self) -> Iterator[None]:
        """Connections that are there, or are made meanwhile, fall silent, those of monitors too."""
        self._dead.set()
        try:
            yield
        finally:
            self._dead.clear()

    def arm(
        self,
        *,
        request_lost: Loses = _never,
        reply_lost: Loses = _never,
        instead: dict[str, Any] | None = None,
        silent: Silence | None = None,
    ) -> None:
        with self._lock:
            self.request_lost, self.reply_lost = request_lost, reply_lost
            self.instead, self.silent = instead, silent
            self.seen, self.lost = [], []

    def database_uri(self, name: str) -> str:
        return f"mongodb://127.0.0.1:{self.port}/{name}?directConnection=true"

    def _judge(self, message: bytes) -> tuple[bool, bool]:
        command = _parse(message)
        if command is None or command.name in _UPKEEP:
            return False, False
        with self._lock:
            command.number = len(self.seen)
            self.seen.append(command.name)
            request = self.request_lost(command)
            reply = not request and self.reply_lost(command)
            if request or reply:
                self.lost.append(command.name)
            return request, reply

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.upstream)) as server,
        ):
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector = selectors.DefaultSelector()
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(0.2):
                    if self._dead.is_set():
                        return self._swallow(client)
                    message = _receive(key.fileobj)
                    if message is None:
                        return
                    if self._dead.is_set():
                        return self._swallow(client)
                    if key.fileobj is server:
                        client.sendall(message)
                    elif not self._pass_on(message, client, server):
                        return

    def _pass_on(self, message: bytes, client: socket.socket, server: socket.socket) -> bool:
        """Whether the connection lives on; the driver sends no second command before the reply."""
        request_lost, reply_lost = self._judge(message)
        if request_lost or reply_lost:
            reply = b""
            if reply_lost:
                server.sendall(message)
                reply = _receive(server) or b""
                if not reply:
                    return False
            if self.silent is not None:
                if self.silent is Silence.HALF_A_REPLY:
                    client.sendall(reply[: len(reply) // 2])
                self._swallow(client)
                return False
            if self.instead is None:
                return False
            client.sendall(_reply(message, self.instead))
            return True
        server.sendall(message)
        return True

    def _swallow(self, client: socket.socket) -> None:
        """Read what is sent, as a healthy network would carry it, until the client gives up."""
        client.settimeout(0.2)
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                if not client.recv(65536):
                    return

    def run(self, listener: socket.socket) -> None:
        listener.settimeout(0.2)
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def stop(self) -> None:
        self._stop.set()


def _receive(source: Any) -> bytes | None:
    header = _exactly(source, _HEADER.size)
    if header is None:
        return None
    body = _exactly(source, _HEADER.unpack(header)[0] - _HEADER.size)
    return None if body is None else header + body


def _exactly(source: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        piece = source.recv(size - len(received))
        if not piece:
            return None
        received += piece
    return bytes(received)


def _parse(message: bytes) -> Command | None:
    if _HEADER.unpack_from(message)[3] != _MSG:
        return None
    offset = _HEADER.size + 4
    while message[offset] != 0:  # document sequences may come before the body
        offset += 1 + struct.unpack_from("<i", message, offset + 1)[0]
    size = struct.unpack_from("<i", message, offset + 1)[0]
    body = bson.decode(message[offset + 1 : offset + 1 + size])
    return Command(next(iter(body)), body, 0)


def _reply(request: bytes, answer: dict[str, Any]) -> bytes:
    payload = struct.pack("<i", 0) + b"\0" + bson.encode(answer)
    request_id = _HEADER.unpack_from(request)[1]
    return _HEADER.pack(_HEADER.size + len(payload), 1, request_id, _MSG) + payload


@contextlib.contextmanager
def faulty_proxy(upstream: int) -> Iterator[FaultyProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = FaultyProxy(upstream, port=listener.getsockname()[1])
        thread = threading.Thread(target=proxy.run, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.stop()
            thread.join(5)
