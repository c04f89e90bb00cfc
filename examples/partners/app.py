"""A STAND-IN for the outside world, for demos and tests. It is not part of the product.

It plays two partners:
  POST /confirmations     a confirmation service: 200 for yes, 422 for no
  POST /webhooks          a webhook receiver: 204, or 401 for a bad signature
and lets you look behind the scenes, whatever the knobs say:
  GET /confirmations      what the confirmation service did
  GET /received?since=0   what the webhook receiver got
  DELETE /received        forgets everything, of both partners
  GET /knobs, PUT /knobs  latency_seconds, error_rate, refuse_skus, outage

Run it with `python -m examples.partners.app --port 8001`. PARTNERS_WEBHOOK_SECRET is the
secret of the signatures, PARTNERS_SEED the seed of the dice that decide on errors.
"""

import argparse
import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server
from litestar import Litestar, MediaType, Request, Response, Router, delete, get, post, put
from litestar.di import Provide
from litestar.params import Parameter
from standardwebhooks import WebhookVerificationError

from examples.partners.confirmations import Answer, Confirmations, Envelope, Standing
from examples.partners.knobs import Knobs, Troubles
from examples.partners.webhooks import DEMO_SECRET, Receipt, Webhooks

DEFAULT_PORT = 8001

#: Any number would do, as long as it is the same each time.
DEFAULT_SEED = "1"

#: Nothing here is worth waiting for at the end. Granian takes whole seconds, and 0 as "for ever".
PATIENCE_SECONDS = 1


class Received(msgspec.Struct, frozen=True):
    """`forgotten` counts the oldest events, which there was no room for: they are not lost on the way."""

    events: Sequence[Receipt]
    repeats: int
    forgotten: int


class Confirmed(msgspec.Struct, frozen=True):
    """How each booking stands. `repeats` counts the requests whose key had been answered before."""

    bookings: Mapping[str, Standing]
    repeats: int


@post("/confirmations", sync_to_thread=False)
def confirm(
    body: bytes,
    idempotency_key: Annotated[str, Parameter(header="Idempotency-Key", min_length=1)],
    confirmations: Confirmations,
    troubles: Troubles,
) -> Response[Answer]:
    envelope = msgspec.json.decode(body, type=Envelope)
    answer = confirmations.answer(idempotency_key, envelope, refuse_skus=troubles.knobs.refuse_skus)
    return Response(answer, status_code=422 if answer.reason else 200)


@post("/webhooks", status_code=204, sync_to_thread=False)
def receive(body: bytes, request: Request[Any, Any, Any], webhooks: Webhooks) -> None:
    webhooks.receive(body, request.headers)


@get("/confirmations", sync_to_thread=False)
def show_confirmations(confirmations: Confirmations) -> Confirmed:
    return Confirmed(confirmations.bookings, confirmations.repeats)


@get("/received", sync_to_thread=False)
def show_received(webhooks: Webhooks, since: Annotated[int, Parameter(ge=0)] = 0) -> Received:
    return Received(webhooks.since(since), webhooks.repeats, webhooks.forgotten)


@delete("/received", sync_to_thread=False)
def forget(confirmations: Confirmations, webhooks: Webhooks) -> None:
    confirmations.forget()
    webhooks.forget()


@get("/knobs", sync_to_thread=False)
def show_knobs(troubles: Troubles) -> Knobs:
    return troubles.knobs


@put("/knobs", sync_to_thread=False)
def turn_knobs(body: bytes, troubles: Troubles) -> Knobs:
    # Decoded here because Litestar's own decoding is lax: it would take "0.5" for 0.5.
    troubles.knobs = msgspec.json.decode(body, type=Knobs)
    return troubles.knobs


@get("/", media_type=MediaType.TEXT, sync_to_thread=False)
def introduce() -> str:
    return __doc__


def create_app() -> Litestar:
    """Return the partners as the environment wants them, with nothing remembered."""
    troubles = Troubles(int(os.environ.get("PARTNERS_SEED", DEFAULT_SEED)))
    webhooks = Webhooks(os.environ.get("PARTNERS_WEBHOOK_SECRET", DEMO_SECRET))

    async def strike(_: Request[Any, Any, Any]) -> Response[str] | None:
        # Not the bound method itself: Litestar copies a router deeply, and would turn the knobs of a copy.
        return await troubles.strike()

    partners = Router("/", route_handlers=[confirm, receive], before_request=strike)
    behind_the_scenes = [show_confirmations, show_received, forget, show_knobs, turn_knobs, introduce]
    injected = {"confirmations": Confirmations(), "troubles": troubles, "webhooks": webhooks}
    return Litestar(
        route_handlers=[partners, *behind_the_scenes],
        dependencies={name: _given(value) for name, value in injected.items()},
        exception_handlers={
            msgspec.DecodeError: _unreadable,
            UnicodeDecodeError: _unreadable,
            WebhookVerificationError: _forged,
        },
        openapi_config=None,
        logging_config=None,
    )


def _given(value: object) -> Provide:
    """Inject one value, the same for every request."""

    def provide() -> Any:
        return value

    return Provide(provide, use_cache=True, sync_to_thread=False)


def _unreadable(_: Request[Any, Any, Any], error: ValueError) -> Response[dict[str, str]]:
    return Response({"reason": str(error)}, status_code=400)


def _forged(_: Request[Any, Any, Any], error: WebhookVerificationError) -> Response[dict[str, str]]:
    return Response({"reason": str(error)}, status_code=401)


def main() -> None:
    """Serve until SIGTERM, in one worker process: what is remembered is in its memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    port = parser.parse_args().port
    if _is_taken(port):
        parser.error(f"something listens on port {port} already; choose another with --port")
    print(f"{__doc__.splitlines()[0]} It listens on http://127.0.0.1:{port}", flush=True)
    Server(
        "examples.partners.app:create_app",
        factory=True,
        interface=Interfaces.ASGI,
        address="127.0.0.1",
        port=port,
        workers=1,
        log_level=LogLevels.warning,
        workers_kill_timeout=PATIENCE_SECONDS,
    ).serve()


def _is_taken(port: int) -> bool:
    """Ask before Granian does: it would share the port, and each process would get a part of the calls."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


if __name__ == "__main__":
    main()
