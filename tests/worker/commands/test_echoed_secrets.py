"""A receiver that repeats the request in its error: no secret of it is stored, or shown to operators."""

from base64 import b64encode
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.support.builders import ROUTES, Db, a_hold, an_item
from tests.support.commands import a_routes_file, run_command
from tests.support.http_server import a_server, saying

pytestmark = pytest.mark.slow

PASSWORD = "hunter2hunter2"
SECRETS = (PASSWORD, b64encode(f"shop:{PASSWORD}".encode()).decode().rstrip("="), "eyJhbGciOiJub25lIn0")

STORED = "SELECT outbox.*::text FROM outbox", "SELECT outbox_destinations.*::text FROM outbox_destinations"


def repeat(handler: BaseHTTPRequestHandler) -> None:
    headers = dict(handler.headers) | {"X-Proxy": "Bearer eyJhbGciOiJub25lIn0.e30."}
    saying(500, f"echo: {headers}".encode())(handler)


def test_no_secret_that_a_receiver_repeats_is_stored_or_shown(db: Db, tmp_path: Path) -> None:
    hold = a_hold(db, an_item(db))
    with a_server() as server:
        server.answer = repeat
        url = server.url.replace("://", f"://shop:{PASSWORD}@")
        routes = {"HOLDFAST_ROUTES": a_routes_file(tmp_path, *ROUTES.names, url=url)}
        run_command("process-outbox", **routes)
        assert any("authorization" in request.headers for request in server.requests)

    why = run_command("why", str(hold.id), **routes).stdout
    destinations = run_command("destinations", "list", "--json", **routes).stdout
    with db.begin() as session:
        stored = [row for query in STORED for row in session.execute(text(query)).scalars()]

    shown = " ".join((why, destinations, *stored))
    assert "echo: {" in shown and "[redacted]" in shown
    assert [secret for secret in SECRETS if secret in shown] == []
