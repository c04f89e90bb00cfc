"""Providers: who offers slots, each of which is stock of one unit with a fixed period."""

from domain.providers.slots import MAX_SLOT, After, find, get, publish, slot_of

__all__ = ["MAX_SLOT", "After", "find", "get", "publish", "slot_of"]
