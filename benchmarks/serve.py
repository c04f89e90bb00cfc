"""One process of granian for any application: ours and the textbook's are served alike."""

import sys

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server


def main(target: str, port: int) -> None:
    Server(target, factory=True, interface=Interfaces.ASGI, port=port, workers=1, log_level=LogLevels.error).serve()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
