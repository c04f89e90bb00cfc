"""When to try again: exponential, with full jitter and a cap.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from datetime import timedelta

#: Past this the power of two means nothing more: every cap is reached long before.
MAX_DOUBLINGS = 32


def delay(attempts: int, *, first: timedelta, cap: timedelta, jitter: float) -> timedelta:
    """Return how long to wait after the given number of failed attempts (1 or more).

    The caller rolls `jitter`, from 0 up to 1. Full jitter spreads the retries of many
    rows that failed together over the whole interval.
    """
    doublings = min(max(attempts, 1) - 1, MAX_DOUBLINGS)
    longest: timedelta = min(first * 2**doublings, cap)
    return longest * jitter
