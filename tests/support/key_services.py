"""A key service outside, as an operator would write one. The file of KEY_SERVICE_STATE says what is wrong with it."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from domain.privacy import Keyring
from tests.domain.privacy.people import written

#: What the setting PII_KEY_SERVICE has, to use it.
NAME = "tests.support.key_services:made"

STATE = "KEY_SERVICE_STATE"
WELL, DOWN, HANGING = "well", "down", "hanging"


class KeysElsewhere:
    """Keys that are reached over a network, which may be down."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._keys = Keyring.read(written("new", "old"))

    @property
    def key_id(self) -> str:
        return self._reached().key_id

    @property
    def key_ids(self) -> frozenset[str]:
        return self._reached().key_ids

    def wrap(self, data_key: bytes, row: bytes) -> bytes:
        return self._reached().wrap(data_key, row)

    def unwrap(self, key_id: str, wrapped: bytes, row: bytes) -> bytes:
        return self._reached().unwrap(key_id, wrapped, row)

    def hash(self, purpose: str, text: str) -> bytes:
        return self._reached().hash(purpose, text)

    def hashes(self, purpose: str, text: str) -> Sequence[bytes]:
        return self._reached().hashes(purpose, text)

    def _reached(self) -> Keyring:
        while (state := self._state.read_text()) == HANGING:
            time.sleep(0.05)
        if state == DOWN:
            raise ConnectionError("the data key is 0123")
        return self._keys


def made() -> KeysElsewhere:
    return KeysElsewhere(Path(os.environ[STATE]))
