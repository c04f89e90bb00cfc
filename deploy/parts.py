"""What `bin/up` runs: programs and servers, which it watches alike."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Death:
    """What ended a process. If it is final, another one would end in the same way."""

    cause: str
    is_final: bool = False


class Part(Protocol):
    """A program or a server. `lost` says what its death means until it is back."""

    @property
    def name(self) -> str: ...

    @property
    def lost(self) -> str: ...

    def start(self) -> None:
        """Start it, and do not wait for long. Raises CannotStart."""
        ...

    def death(self) -> Death | None:
        """Return what ended it, or None while it runs."""
        ...


class CannotStart(Exception):
    """A part could not be started. The message says why."""
