"""A STAND-IN for the outside world, for demos and tests. It is not part of the product.

It plays these partners:
  POST /confirmations     a confirmation service: 200 for yes, 422 for no
  POST /inventory         an inventory service, which holds and releases units
  POST /pricing           a pricing service
  POST /payment           a payment service, which takes payments and gives them back
  POST /webhooks          a webhook receiver: 204, or 401 for a bad signature
  GET /jwks.json          an identity provider: the key by which its tokens are verified
  POST /tokens            a token for whoever asks: role, subject, venues, provider_id
These show and change what the partners do. The knobs have no effect on them:
  GET /confirmations      the status of each booking at the confirmation service
  GET /books              what inventory and payment did for each booking, and how often
  GET /received           the events that the webhook receiver got
  DELETE /received        clears what all but the identity provider remember
  GET /knobs, PUT /knobs  latency_seconds, error_rate, refuse_skus, outage, late_rate, late_seconds

The knobs are about confirmations and webhooks; inventory, pricing and payment each have knobs of their own, such as
{"payment": {"outage": true}}. Run it with `python -m examples.partners.app --port 8001`.
"""

import argparse
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server
from litestar import Litestar, MediaType, Request, Response, delete, get, post, put
from litestar.di import Provide
from litestar.params import Parameter
from standardwebhooks import WebhookVerificationError

from examples.partners.confirmations import ConfirmationRequest, ConfirmationResponse, Confirmations
from examples.partners.identity import Identity, TokenRequest
from examples.partners.knobs import Faults, Knobs
from examples.partners.services import Inventory, Payment, Pricing, Service, ServiceRequest
from examples.partners.webhooks import Webhooks

ADDRESS = "127.0.0.1"
DEFAULT_PORT = 8001

#: The variables that name the issuer of tokens, and the file that keeps the key by which they are signed.
ISSUER, KEY_FILE = "AUTH_ISSUER", "PARTNERS_KEY_FILE"

#: Requests in flight are not worth a longer wait at the end. Granian takes whole seconds, and 0 means no limit.
STOP_SECONDS = 1


@post("/confirmations")
async def confirm(
    body: bytes,
    idempotency_key: Annotated[str, Parameter(header="Idempotency-Key", min_length=1)],
    confirmations: Confirmations,
    faults: Faults,
) -> Response[ConfirmationResponse]:
    await faults.interfere()
    request = msgspec.json.decode(body, type=ConfirmationRequest)
    response = confirmations.respond(idempotency_key, request, refuse_skus=faults.knobs.refuse_skus)
    await faults.delay_answer()
    return Response(response, status_code=422 if response.reason else 200)


@post(["/inventory", "/pricing", "/payment"])
async def serve(
    body: bytes,
    request: Request[Any, Any, Any],
    idempotency_key: Annotated[str, Parameter(header="Idempotency-Key", min_length=1)],
    services: Mapping[str, Service],
    faults: Faults,
) -> Response[dict[str, str]]:
    name = request.url.path.strip("/")
    await faults.interfere(name)
    asked = msgspec.json.decode(body, type=ServiceRequest)
    status, answer = services[name].respond(idempotency_key, asked, refuse_skus=faults.of(name).refuse_skus)
    await faults.delay_answer(name)
    return Response(answer, status_code=status)


@get("/books", sync_to_thread=False)
def show_books(services: Mapping[str, Service]) -> dict[str, object]:
    return {name: {"bookings": one.books, "repeats": one.repeats} for name, one in services.items()}


@post("/webhooks", status_code=204)
async def receive(body: bytes, request: Request[Any, Any, Any], webhooks: Webhooks, faults: Faults) -> None:
    await faults.interfere()
    webhooks.receive(body, request.headers)


@get("/jwks.json", sync_to_thread=False)
def show_keys(identity: Identity) -> dict[str, object]:
    return identity.jwks()


@post("/tokens", status_code=200, sync_to_thread=False)
def give_token(body: bytes, identity: Identity) -> dict[str, str]:
    return {"token": identity.token(msgspec.json.decode(body, type=TokenRequest))}


@get("/confirmations", sync_to_thread=False)
def show_confirmations(confirmations: Confirmations) -> dict[str, object]:
    return {"bookings": confirmations.bookings, "repeats": confirmations.repeats}


@get("/received", sync_to_thread=False)
def show_received(webhooks: Webhooks) -> dict[str, object]:
    events = list(webhooks.events.values())
    return {"events": events, "repeats": webhooks.repeats, "forgotten": webhooks.forgotten}


@delete("/received", sync_to_thread=False)
def clear(confirmations: Confirmations, webhooks: Webhooks, services: Mapping[str, Service]) -> None:
    confirmations.clear()
    webhooks.clear()
    for service in services.values():
        service.clear()


@get("/knobs", sync_to_thread=False)
def show_knobs(faults: Faults) -> Knobs:
    return faults.knobs


@put("/knobs", sync_to_thread=False)
def set_knobs(body: bytes, faults: Faults) -> Knobs:
    # Litestar's own decoding would accept "0.5" for 0.5.
    faults.knobs = msgspec.json.decode(body, type=Knobs)
    return faults.knobs


@get("/", media_type=MediaType.TEXT, sync_to_thread=False)
def introduce() -> str:
    return __doc__


def create_app() -> Litestar:
    """Return partners that remember nothing yet and have no faults."""
    key_file = os.environ.get(KEY_FILE)
    identity = Identity(os.environ.get(ISSUER, "partners"), Path(key_file) if key_file else None)
    state = {
        "confirmations": Confirmations(),
        "faults": Faults(),
        "identity": identity,
        "services": {"inventory": Inventory(), "pricing": Pricing(), "payment": Payment()},
        "webhooks": Webhooks(),
    }
    return Litestar(
        route_handlers=[
            confirm,
            serve,
            receive,
            show_keys,
            give_token,
            show_confirmations,
            show_books,
            show_received,
            clear,
            show_knobs,
            set_knobs,
            introduce,
        ],
        dependencies={name: _provide(value) for name, value in state.items()},
        exception_handlers={msgspec.DecodeError: _refuse, WebhookVerificationError: _refuse},
        openapi_config=None,
        logging_config=None,
    )


def _provide(value: object) -> Provide:
    """Inject the same value into every request."""

    def provide() -> Any:
        return value

    return Provide(provide, use_cache=True, sync_to_thread=False)


def _refuse(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, str]]:
    status_code = 401 if isinstance(error, WebhookVerificationError) else 400
    return Response({"reason": str(error)}, status_code=status_code)


def main() -> None:
    """Serve until SIGTERM, in one worker process, since the partners' state is in its memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    port = parser.parse_args().port
    try:
        _check_port(port)
    except OSError as error:
        parser.error(f"port {port} can't be used ({error.strerror}); choose another with --port")
    print(f"{__doc__.splitlines()[0]} It listens on http://{ADDRESS}:{port}", flush=True)
    Server(
        "examples.partners.app:create_app",
        factory=True,
        interface=Interfaces.ASGI,
        address=ADDRESS,
        port=port,
        workers=1,
        log_level=LogLevels.warning,
        workers_kill_timeout=STOP_SECONDS,
    ).serve()


def _check_port(port: int) -> None:
    """Raise OSError if the port is taken. Granian would share the port, and each process would get some requests."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((ADDRESS, port))


if __name__ == "__main__":
    main()
