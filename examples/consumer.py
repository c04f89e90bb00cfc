"""An idempotent consumer of webhooks: each event has its effect once, however often it is delivered."""

from collections.abc import Mapping

from psycopg import Connection
from standardwebhooks import Webhook, WebhookVerificationError

TABLES = """
    CREATE TABLE inbox (event_id uuid PRIMARY KEY, received_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE sold (sku text PRIMARY KEY, units bigint NOT NULL);
"""
REMEMBER = "INSERT INTO inbox (event_id) VALUES (%s) ON CONFLICT DO NOTHING"
ADD = """
    INSERT INTO sold VALUES (%(sku)s, %(quantity)s)
    ON CONFLICT (sku) DO UPDATE SET units = sold.units + excluded.units
"""


def receive(connection: Connection, secret: str, headers: Mapping[str, str], body: bytes) -> int:
    """Take one delivery and return the HTTP status to answer with, once its effect is committed."""
    try:
        event = Webhook(secret).verify(body, dict(headers))
    except (WebhookVerificationError, ValueError):
        return 401
    with connection.transaction():
        is_new = connection.execute(REMEMBER, [event["event_id"]]).rowcount == 1
        if is_new and event["event_type"] == "booking.confirmed":
            connection.execute(ADD, event["payload"])
    return 204
