"""Fulfilment: what the answers of outside services do to reservations. It calls nobody; the workers do."""

from domain.fulfilment.steps import CONFIRMATION, STEP_TYPES, load_routes

__all__ = ["CONFIRMATION", "STEP_TYPES", "load_routes"]
