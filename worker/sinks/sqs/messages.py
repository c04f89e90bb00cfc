"""Messages as SQS takes them: within its limits, and grouped into calls."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.outbox import Rejected, Row
from worker.formats import Message

#: The messages that SQS takes in one call. Source: Amazon SQS Developer Guide, "Message quotas".
BATCH_MESSAGES = 10

#: The size of one message, and of all messages in a call: bodies, and names, types and values of attributes. Some
#: queues allow more since 2025; every queue takes this much by default.
LIMIT_BYTES = 256 * 1024

MAX_ATTRIBUTES = 10

#: Characters that SQS refuses in bodies and attributes: XML 1.0 does not have them.
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as SendMessageBatch wants it, and its size in bytes."""

    row_id: int
    fields: Mapping[str, Any]
    size: int


Chunk = Sequence[Entry]


def entry_of(row: Row, message: Message, *, is_fifo: bool) -> Entry | Rejected:
    """Return a message as it is sent, or the reason why it can't be sent."""
    body, attributes = _legal(message.body), _attributes(row, message)
    size = len(body.encode()) + sum(len(f"{name}String{value}".encode()) for name, value in attributes.items())
    if size > LIMIT_BYTES:
        return Rejected(
            f"The message is {size:,} bytes with its attributes, and SQS takes {LIMIT_BYTES:,}. It was not sent."
        )
    typed = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    fields: dict[str, Any] = {"MessageBody": body, "MessageAttributes": typed}
    if is_fifo:
        fields |= {"MessageGroupId": str(row.aggregate_id), "MessageDeduplicationId": _deduplication_id(row)}
    return Entry(row.id, fields, size)


def _legal(body: str) -> str:
    """Escape the characters that SQS refuses. They are inside strings of JSON, where an escape means the same."""
    return body if body.isascii() else ILLEGAL.sub(lambda found: f"\\u{ord(found[0]):04x}", body)


def _attributes(row: Row, message: Message) -> Mapping[str, str]:
    """Return the first ten attributes that are not empty: the format's, then the event's type if it is not there."""
    attributes = {**message.attributes}
    attributes.setdefault("EventType", row.type)
    legal = [(name, ILLEGAL.sub("\ufffd", value)) for name, value in attributes.items() if value]
    return dict(legal[:MAX_ATTRIBUTES])


def _deduplication_id(row: Row) -> str:
    """Return the event's id; for a replay, followed by the value of its header `replayed`.

    SQS drops a message whose id it has seen within the last five minutes, and reports it as taken. That is right for
    a retry, but a replay must arrive. Retries of one replay have the same header, so they have the same id.
    """
    if not row.is_replayed:
        return str(row.event_id)
    replayed = re.sub(r"[^0-9A-Za-z:.+-]", "-", str(json.loads(row.headers)["replayed"]))
    return f"{row.event_id}.{replayed}"[:128]


def chunks(entries: Iterable[Entry]) -> Iterator[Chunk]:
    """Group entries into calls, each within the limits of SQS."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        if len(chunk) == BATCH_MESSAGES or size + entry.size > LIMIT_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += entry.size
    if chunk:
        yield chunk
