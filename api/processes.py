"""The processes of the API: Granian serves in each of them.

Granian's own way of watching them is not used: it ends all of them if one dies twice within some seconds.
"""

from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess

from granian.server import MPServer

from api import process
from api.process import STOP_SECONDS
from domain.runtime.processes.place import Place
from domain.runtime.processes.supervisor import Supervisor

#: What the death of a process means.
LOST = "Its clients got no answer to what was in flight, and have to repeat these requests."

#: What it means that a process was killed at the end.
CUT_OFF = (
    "A client that got no answer has to repeat its request. Look whether PostgreSQL hangs, or a client goes on sending."
)


class Server(MPServer):
    """Granian's server with our supervision of its processes."""

    #: What the main process exits with when `serve` has returned. A client that goes on sending at the end changes
    #: nothing of it.
    exit_code = 0

    def _serve(self, spawn_target: Callable[..., None], target_loader: Callable[..., object]) -> None:
        """Serve until a signal comes, or no process can be kept. Granian calls this with its options complete."""
        self._init_shared_socket()  # type: ignore[no-untyped-call]
        run = partial(process.run, spawn_target)

        def made(number: int) -> BaseProcess:
            # Granian watches a process that it starts itself, and this one only makes it.
            made: BaseProcess = self._spawn_worker(number, run, target_loader).inner
            return made

        places = [Place(partial(made, number), lost=LOST) for number in range(self.workers)]
        self.exit_code = Supervisor("API", places, end_seconds=STOP_SECONDS, advice=CUT_OFF).run()
