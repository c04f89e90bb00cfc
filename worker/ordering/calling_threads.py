"""Threads that call a destination: every sink or step that needs such threads gets its pool here."""

import threading
from concurrent.futures import ThreadPoolExecutor

#: How the names of these threads begin.
PREFIX = "calls"


def pool(concurrency: int) -> ThreadPoolExecutor:
    """Return a pool of at most `concurrency` threads. `any_alive` knows them, so they can't delay the exit."""
    return ThreadPoolExecutor(concurrency, thread_name_prefix=PREFIX)


def any_alive() -> bool:
    """Return whether a thread of any pool is alive. When all pools are closed, such a thread waits for an answer."""
    return any(thread.name.startswith(PREFIX) for thread in threading.enumerate())
