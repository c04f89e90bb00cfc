"""A process of the server that was asked to stop, and does not end."""

import subprocess
import sys

#: Its event loop hangs for a second after the signal.
HANGS = """
import asyncio, os, signal, time
from api import stopping

stopping.TELL_AFTER_SECONDS = 0.1

async def hanging():
    with stopping.before_stopping(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

asyncio.run(hanging())
"""


def test_a_process_that_does_not_end_writes_where_it_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, check=False)

    assert "most recent call first" in done.stderr
    assert "in hanging" in done.stderr
