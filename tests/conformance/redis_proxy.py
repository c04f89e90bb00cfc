"""A proxy before a Redis: it reads command by command, and may answer one itself instead of passing it on."""

import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

#: Returns the answer to a command in Redis's protocol, or None to have Redis answer it.
Answer = Callable[[Sequence[bytes]], bytes | None]


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


class RedisProxy(socketserver.ThreadingTCPServer):
    """Passes commands on to the Redis that listens at `path`, in order, and returns one answer to each."""

    daemon_threads = True

    def __init__(self, path: str, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.path = path
        self.answer = answer
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    server: RedisProxy

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as redis, suppress(OSError, EOFError):
            redis.connect(self.server.path)
            with redis.makefile("rb") as answers:
                while True:
                    raw, arguments = _command(self.rfile)
                    answer = self.server.answer(arguments)
                    if answer is None:
                        redis.sendall(raw)
                        answer = _reply(answers)
                    self.wfile.write(answer)


def _command(reader: Reader) -> tuple[bytes, Sequence[bytes]]:
    """Read a command, which is an array of strings. Return its bytes, and its strings."""
    raw = _line(reader)
    arguments = []
    for _ in range(int(raw[1:])):
        length = _line(reader)
        argument = reader.read(int(length[1:]) + 2)
        raw += length + argument
        arguments.append(argument[:-2])
    return raw, arguments


def _reply(reader: Reader) -> bytes:
    """Read the bytes of an answer. Source: "Redis serialization protocol specification"."""
    line = _line(reader)
    count = int(line[1:]) if line[:1] in b"$*" else -1
    if line[:1] == b"$" and count >= 0:
        return line + reader.read(count + 2)
    return line + b"".join(_reply(reader) for _ in range(count))


def _line(reader: Reader) -> bytes:
    line = reader.readline()
    if not line:
        raise EOFError
    return line
