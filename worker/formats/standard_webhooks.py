"""The body that the Standard Webhooks specification recommends in "Payload structure".

The webhook sink sends the headers and signatures of that specification with every format.
"""

import json

from domain.outbox import Row
from worker.formats.envelope import trace
from worker.formats.message import Message


def write(row: Row) -> Message:
    """Return type, timestamp and data. The payload is JSON already and is inserted as it is."""
    timestamp = row.created_at.isoformat().replace("+00:00", "Z")
    body = f'{{"type":{json.dumps(row.type)},"timestamp":"{timestamp}","data":{row.payload}}}'
    return Message(body, attributes=trace(row))
