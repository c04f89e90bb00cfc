"""Messages as SQS takes them: within its limits, and put together into calls."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.outbox import Rejected, Row
from worker.formats import Message

#: What SQS takes in one call. Source: Amazon SQS Developer Guide, "Message quotas".
BATCH_MESSAGES = 10

#: Of one message, and of all in a call: bodies, and names, types and values of attributes. Queues may
#: allow more since 2025; what every queue takes by default is safe everywhere.
LIMIT_BYTES = 256 * 1024

MAX_ATTRIBUTES = 10

#: Characters that SQS takes in no body and no attribute: those that XML 1.0 leaves out.
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as SendMessageBatch wants it, and what it counts for in bytes."""

    row_id: int
    fields: Mapping[str, Any]
    size: int


Chunk = Sequence[Entry]


def entry_of(row: Row, message: Message, *, is_fifo: bool) -> Entry | Rejected:
    """Return a message as it is sent, or why it can't be."""
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
    """Escape what SQS takes in no body. It can only be inside a string of JSON, where the escape means the same."""
    return body if body.isascii() else ILLEGAL.sub(lambda found: f"\\u{ord(found[0]):04x}", body)


def _attributes(row: Row, message: Message) -> Mapping[str, str]:
    """Return the first ten that are not empty: the format's, then the event's type unless it is among them."""
    wanted = {**message.attributes}
    wanted.setdefault("EventType", row.type)
    found = [(name, ILLEGAL.sub("\ufffd", value)) for name, value in wanted.items() if value]
    return dict(found[:MAX_ATTRIBUTES])


def _deduplication_id(row: Row) -> str:
    """Return the event's id; for a replay, that and what its header says.

    Within five minutes SQS drops what comes again under the same id, and says that it has it: right for a retry,
    and for a replay it would be a lie. Retries of a replay are repeats again, as their header is the same.
    """
    if not row.is_replayed:
        return str(row.event_id)
    said = re.sub(r"[^0-9A-Za-z:.+-]", "-", str(json.loads(row.headers)["replayed"]))
    return f"{row.event_id}.{said}"[:128]


def chunks(entries: Iterable[Entry]) -> Iterator[Chunk]:
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
