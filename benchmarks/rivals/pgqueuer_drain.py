"""PgQueuer at its best: enqueue no-op jobs in bulk, then drain them in this process.

It drains as the strategy "drain" of PgQueuer's own benchmark does, with uvloop and with the
autovacuum settings that its guide recommends. The driver is asyncpg, which its documents call
the faster one, if that is installed; otherwise it is psycopg.
"""

import argparse
import asyncio
import logging
from importlib import import_module
from importlib.util import find_spec

import psycopg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, Driver, PsycopgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

ENQUEUED_AT_ONCE = 10_000


async def main(url: str, *, jobs: int, consumers: int, batch: int) -> None:
    queries = Queries(await _connected(url))
    await queries.install()
    await queries.optimize_autovacuum()
    for begin in range(0, jobs, ENQUEUED_AT_ONCE):
        count = min(ENQUEUED_AT_ONCE, jobs - begin)
        await queries.enqueue(["nothing"] * count, [b""] * count, [0] * count)
    await queries.driver.execute("VACUUM (ANALYZE)")
    await queries.driver.execute("CHECKPOINT")
    drains = [PgQueuer(await _connected(url)) for _ in range(consumers)]
    for drain in drains:
        drain.entrypoint("nothing")(_nothing)
    await asyncio.gather(*(drain.run(batch_size=batch, mode=QueueExecutionMode.drain) for drain in drains))


async def _nothing(job: Job) -> None:
    pass


async def _connected(url: str) -> Driver:
    if find_spec("asyncpg"):
        return AsyncpgDriver(await import_module("asyncpg").connect(url))
    return PsycopgDriver(await psycopg.AsyncConnection.connect(url, autocommit=True))


if __name__ == "__main__":
    logging.disable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    for name in ("jobs", "consumers", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    uvloop.run(main(**vars(parser.parse_args())))
