"""Personal data: it is encrypted, decrypted and looked for in threads of its own, as a key service may take long."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from litestar.datastructures import State

from api.fair_threads import FairThreads
from domain.access import Principal
from domain.privacy import KeyService
from domain.runtime.errors import NoKeys, PersonalDataUnavailable

T = TypeVar("T")

#: The threads, and how much of a processor they may take in the long run, for which all others of the process wait.
THREADS, PROCESSORS = 8, 0.3

#: What takes longer than this is given up, in seconds. Its thread is free again when the key service has given up too.
TIMEOUT_SECONDS = 5.0


class PersonalData:
    """The keys of personal data, and the threads in which they are used."""

    def __init__(self, keys: KeyService) -> None:
        self._keys = keys
        self._threads = FairThreads("personal_data", THREADS, processors=PROCESSORS)

    async def run(self, act: Callable[[KeyService], T], principal: Principal) -> T:
        """Return what `act` returns for the keys. Raises Busy, PersonalDataUnavailable and what `act` raises."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._threads.run(partial(act, self._keys), principal.client_id)
        except TimeoutError:
            raise PersonalDataUnavailable from None


def personal_data_of(state: State) -> PersonalData:
    """Return the personal data of an application. Raises NoKeys if it has no keys."""
    personal_data: PersonalData | None = state.personal_data
    if personal_data is None:
        raise NoKeys
    return personal_data
