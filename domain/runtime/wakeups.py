"""The names by which workers are woken: queues, actors, and how many wake-ups are enough. Pure.

The API and the scheduler send them, workers receive them. A wake-up carries no data: it only says that there may
be work, and a worker that misses one finds the work at the next.
"""

from collections.abc import Mapping

#: The queue of wake-ups for draining the outbox, of which there may be many.
DRAINING = "holdfast"

#: The queue of wake-ups for maintenance, which must not wait behind the many for draining.
MAINTENANCE = "holdfast-maintenance"

PROCESS_OUTBOX = "process_outbox"
EXPIRE_RESERVATIONS = "expire_reservations"
PRUNE = "prune"
RESET_LOW_WATERMARKS = "reset_low_watermarks"
SEAL_AUDIT = "seal_audit"

#: The queue of each actor.
QUEUES: Mapping[str, str] = {
    PROCESS_OUTBOX: DRAINING,
    EXPIRE_RESERVATIONS: MAINTENANCE,
    PRUNE: MAINTENANCE,
    RESET_LOW_WATERMARKS: MAINTENANCE,
    SEAL_AUDIT: MAINTENANCE,
}

#: With this many wake-ups waiting in a queue, the workers are down or busy: one more changes nothing.
ENOUGH_WAITING = 64
