"""A canary: personal data that is like nothing else, so that wherever a part of it shows up, it has leaked."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql
from redis import Redis

GUEST = {
    "name": "Kanárek Qzvxword",
    "email": "qzvxmail@kanarek.example",
    "telephone": "+999 7319 048265",
    "special_requests": "Qzvxwish: světlý pokoj",
}

#: What is looked for: the parts of the guest that no other text has.
WORDS = ("Kanárek", "Qzvxword", "qzvxmail", "kanarek.example", "7319 048265", "7319048265", "Qzvxwish", "světlý")


@dataclass(frozen=True)
class Leak:
    """Where a canary was found, and in which form."""

    where: str
    form: str


def forms(word: str) -> Iterator[bytes]:
    """Yield the bytes by which a text with this word in it would be known, in every encoding that we use."""
    plain = word.encode()
    yield from {plain, word.lower().encode(), word.upper().encode()}
    yield plain.hex().encode()
    yield json.dumps(word)[1:-1].encode()
    yield quote(word).encode()
    for skipped in range(3):
        # In base64, a word looks in one of three ways, by where it begins. What depends on its neighbours is cut off.
        whole = base64.b64encode(b"\0" * skipped + plain).rstrip(b"=")
        yield whole[-(-skipped * 4 // 3) + bool(skipped) : -2]


#: Short ones could be in any random text.
FORMS = sorted({form for word in WORDS for form in forms(word) if len(form) >= 7})


def leaks(where: str, content: str | bytes) -> list[Leak]:
    """Return which canaries are in this text or in these bytes."""
    content = content.encode() if isinstance(content, str) else content
    return [Leak(where, form.decode()) for form in FORMS if form in content]


def dumped(url: str) -> Mapping[str, str]:
    """Return every row of every table of a database as text, by table. Bytes are there in hex, and decoded as text."""
    with psycopg.connect(url) as connection:
        listed = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relkind = 'r' AND (nspname = 'public' OR relname IN ('pg_statistic', 'pg_largeobject'))"
        ).fetchall()
        return {name: "\n".join(_rows(connection, name)) for (name,) in listed}


def _rows(connection: psycopg.Connection[tuple[object, ...]], table: str) -> Iterator[str]:
    name = sql.SQL(".").join(map(sql.Identifier, table.split(".")))
    for row in connection.execute(sql.SQL("SELECT t.*, t::text FROM {} t").format(name)):
        for value in row:
            yield value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def files(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below these folders with its bytes, such as the tables and the log of a PostgreSQL."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_socket():
                yield str(path), path.read_bytes()


def cached(url: str) -> Iterator[tuple[str, bytes]]:
    """Yield everything that a Redis has."""
    with Redis.from_url(url) as client:
        for key in client.scan_iter():
            yield f"Redis {key!r}", key + repr(_value(client, key)).encode()


def _value(client: Redis, key: bytes) -> object:
    match client.type(key):
        case b"string":
            return client.get(key)
        case b"list":
            return client.lrange(key, 0, -1)
        case b"hash":
            return client.hgetall(key)
        case b"set":
            return client.smembers(key)
        case b"zset":
            return client.zrange(key, 0, -1)
        case other:
            raise AssertionError(f"nobody reads a {other!r}")
