"""Procrastinate at its best: defer no-op jobs in bulk, then run them in this process."""

import argparse
import logging

import psycopg
import uvloop
from procrastinate import App, PsycopgConnector

DEFERRED_AT_ONCE = 1_000

#: Connections that run no job: one listens, and one sends the heartbeat.
SPARE_CONNECTIONS = 2


async def main(url: str, *, jobs: int, concurrency: int) -> None:
    app = App(connector=PsycopgConnector(conninfo=url, min_size=1, max_size=concurrency + SPARE_CONNECTIONS))
    nothing = app.task(name="nothing")(_nothing)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for begin in range(0, jobs, DEFERRED_AT_ONCE):
            await nothing.batch_defer_async(*[{}] * min(DEFERRED_AT_ONCE, jobs - begin))
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("VACUUM (ANALYZE)")
            await connection.execute("CHECKPOINT")
        await app.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)


async def _nothing() -> None:
    pass


if __name__ == "__main__":
    logging.disable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    for name in ("jobs", "concurrency"):
        parser.add_argument(f"--{name}", type=int, required=True)
    uvloop.run(main(**vars(parser.parse_args())))
