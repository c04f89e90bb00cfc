"""Slots of providers over HTTP, by the slot contract."""
