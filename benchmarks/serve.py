"""Serve an application by one process of granian: the product's and the textbook's in the same way."""

import sys

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server


def main(target: str, port: int) -> None:
    Server(target, factory=True, interface=Interfaces.ASGI, port=port, workers=1, log_level=LogLevels.error).serve()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
