"""The harnesses of `sqs://`: moto's server with a standard queue, and with a FIFO queue."""

import http.client
import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer
from moto.sqs.models import sqs_backends

from tests.conformance.harness import Intake, ProxiedHarness, Trouble
from tests.conformance.proxy import Proxy

REGION = "eu-west-1"

#: The account of moto's queues, by default.
ACCOUNT = "123456789012"

#: How SQS answers for a single message that it does not take, and for a whole call.
OF_A_MESSAGE: Mapping[Trouble, Mapping[str, Any]] = {
    Trouble.REFUSES: {"SenderFault": True, "Code": "InvalidMessageContents", "Message": "not this one"},
    Trouble.FAILS: {"SenderFault": False, "Code": "InternalError", "Message": "not now"},
}
OF_A_CALL: Mapping[Trouble, str] = {
    Trouble.RETURNS: "com.amazonaws.sqs#QueueDoesNotExist",
    Trouble.THROTTLES: "com.amazonaws.sqs#RequestThrottled",
}


class SqsHarness(ProxiedHarness):
    """boto3 finds the server by environment variables of its own."""

    scheme = "sqs"
    impossible: ClassVar[Mapping[Trouble, str]] = {
        Trouble.DENIES: "SQS lets a call in, and then all of its messages",
    }
    queue: ClassVar = "bookings-{}"
    attributes: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self._moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self._moto.start()
        self._queue = self.queue.format(uuid4().hex)
        self._environment = pytest.MonkeyPatch()
        self._set(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_REGION=REGION)
        self._create(self._moto.get_host_and_port())
        self._sqs = SqsProxy(self._moto.get_host_and_port())
        super().__init__(Proxy(self._sqs.server_address[:2]))  # type: ignore[arg-type]
        self._sqs.intake = self.intake
        self._set(AWS_ENDPOINT_URL_SQS=f"http://127.0.0.1:{self.proxy.port}")
        self.url = f"sqs://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{self._queue}"

    def accepted(self) -> Sequence[str]:
        # Receiving them would change how moto treats repeats.
        return [message.body for message in sqs_backends[ACCOUNT][REGION].queues[self._queue].messages]

    def close(self) -> None:
        super().close()
        self._sqs.close()
        self._moto.stop()
        self._environment.undo()

    def _set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._environment.setenv(name, value)

    def _create(self, moto: tuple[str, int]) -> None:
        client = boto3.client("sqs", region_name=REGION, endpoint_url="http://{}:{}".format(*moto))
        client.create_queue(QueueName=self._queue, Attributes=self.attributes)
        client.close()


class FifoHarness(SqsHarness):
    drops_repeats = True
    queue = "bookings-{}.fifo"
    attributes: ClassVar = {"FifoQueue": "true"}


class SqsProxy(ThreadingHTTPServer):
    """Passes calls on to moto without the messages that have trouble, and answers for those itself."""

    daemon_threads = True
    intake: Intake

    def __init__(self, moto: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.moto = moto
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that hang up: some tests are about that."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: SqsProxy

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        troubles = [self.server.intake.admit(entry["MessageBody"]) for entry in call["Entries"]]
        code = next((OF_A_CALL[trouble] for trouble in troubles if trouble and trouble in OF_A_CALL), None)
        if code:
            self._send(400, {"__type": code, "message": "not today"})
            return
        failed = [
            {"Id": entry["Id"], **OF_A_MESSAGE[trouble]}
            for entry, trouble in zip(call["Entries"], troubles, strict=True)
            if trouble
        ]
        rest = [entry for entry, trouble in zip(call["Entries"], troubles, strict=True) if trouble is None]
        answer = self._passed_on(call | {"Entries": rest}) if rest else {}
        self._send(200, answer | {"Failed": failed})

    def _passed_on(self, call: Mapping[str, Any]) -> dict[str, Any]:
        moto = http.client.HTTPConnection(*self.server.moto)
        kept = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}
        moto.request("POST", self.path, json.dumps(call), kept)
        response = moto.getresponse()
        body = response.read()
        moto.close()
        assert response.status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer

    def _send(self, status: int, answer: Mapping[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
