"""Counts of several processes, added up in Redis by a thread of its own: no request waits for Redis.

A process shares what it has counted of a sender in blocks, so a quota may be exceeded by one block for each further
process, and by what that process admits while Redis answers. Without Redis each process counts for itself.
"""

import hashlib
import threading
import time

import structlog
from limits.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from api.auth.limits.counts import Count, Counts
from domain.runtime.metrics import Counter
from domain.runtime.rounds import isolate_round
from domain.runtime.settings import Settings

#: The blocks that wait to be shared. Further ones wait in their processes, and are shared with the next block.
MOST_WAITING = 1_000

#: The blocks that are shared in a second at most. Each takes 0.1 ms of the processor.
MOST_IN_SECOND = 500

#: A Redis that does not answer within this time is not asked again for some time.
TIMEOUT_SECONDS = 0.1
REST_SECONDS = 2.0

UNSHARED = Counter(
    "holdfast_rate_limits_unshared",
    "Blocks of counted requests that could not be shared with other processes, as Redis did not take them. Meanwhile"
    " rate limits hold for each process. Alert if it increases for minutes.",
)

ADVICE = "Rate limits hold for each process meanwhile. Report this error."

log = structlog.get_logger()


class RedisCounts:
    """Shares counts, and corrects them by what other processes have shared."""

    def __init__(self, url: str) -> None:
        self._storage = RedisStorage(
            url,
            key_prefix="holdfast:rate-limits",
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]
        )
        self._changed = threading.Condition()
        self._waiting: dict[tuple[int, int, str], tuple[Counts, Count]] = {}
        self._is_stopped = False
        self._is_down = False
        self._rests_until = 0.0
        self._thread = threading.Thread(target=self._run, name="rate-limits", daemon=True)

    @classmethod
    def of(cls, settings: Settings) -> "RedisCounts | None":
        """Return what shares counts, unless there is no Redis."""
        broker = settings.broker()
        url = settings.redis_url if broker.startswith("amqp") else broker
        has_redis = url is broker or "redis_url" in settings.model_fields_set
        return cls(url) if has_redis else None

    def start(self) -> None:
        """Begin to share."""
        self._thread.start()

    def stop(self) -> None:
        """Share no more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def share(self, counts: Counts, window: int, key: str, count: Count) -> None:
        """Have a count shared soon. Returns at once."""
        with self._changed:
            if len(self._waiting) < MOST_WAITING and time.monotonic() >= self._rests_until:
                self._waiting[id(counts), window, key] = counts, count
                self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            isolate_round(self._share_next, thread="rate-limits", advice=ADVICE)
            time.sleep(1 / MOST_IN_SECOND)

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_stopped)
            return not self._is_stopped

    def _share_next(self) -> None:
        with self._changed:
            (_, window, key), (counts, count) = self._waiting.popitem()
        with counts.lock:
            block, count.unshared = count.unshared, 0
        try:
            total = self._add(counts, window, key, block)
        except (RedisError, OSError) as error:
            self._rest(error)
            with counts.lock:
                count.unshared += block
            return
        if self._is_down:
            self._is_down = False
            log.info("rate_limits.shared_again")
        with counts.lock:
            count.used = max(count.used, total + count.unshared)

    def _add(self, counts: Counts, window: int, key: str, block: int) -> int:
        """Add a block to what all processes have counted, and return the sum."""
        rate = counts.rate
        # Redis knows who was counted by a hash only.
        sender = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        name = f"{rate.name}:{rate.quota}:{rate.seconds}:{window}:{sender}"
        return self._storage.incr(name, 2 * rate.seconds, block)

    def _rest(self, error: Exception) -> None:
        with self._changed:
            self._rests_until = time.monotonic() + REST_SECONDS
            self._waiting.clear()
        UNSHARED.inc()
        if not self._is_down:
            advice = "each process holds the limits for itself until Redis is back"
            log.warning("rate_limits.redis_unreachable", error=type(error).__name__, advice=advice)
        self._is_down = True
