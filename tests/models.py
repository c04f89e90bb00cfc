"""How long hypothesis drives a model: long enough to find what broke before, and the same way each time."""

from hypothesis import HealthCheck, settings

MODEL = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
