"""A gRPC server that does nothing else: an empty method, and a stream of messages that are always the same."""

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import grpc

from api.grpc.main import SWITCH_SECONDS

EMPTY, STREAM = "/Bare/empty", "/Bare/stream"

#: As large as a reservation of the benchmark.
MESSAGE = bytes(100)

#: As many as the product has.
THREADS = 1_024


class Methods(grpc.GenericRpcHandler):
    """The two methods. Messages are bytes, so nothing is encoded."""

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        if details.method == EMPTY:
            return grpc.unary_unary_rpc_method_handler(empty)
        return grpc.unary_stream_rpc_method_handler(stream)


def empty(_: bytes, __: grpc.ServicerContext) -> bytes:
    return b""


def stream(rows: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    """Stream as many messages as the request says, in digits."""
    return repeat(MESSAGE, int(rows))


def main(port: int) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    server = grpc.server(ThreadPoolExecutor(THREADS), handlers=[Methods()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    signal.sigwait([signal.SIGTERM])
    # A thread of the library would keep the process from its end.
    server.stop(None).wait()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    main(int(sys.argv[1]))
