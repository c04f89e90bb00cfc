"""How long hypothesis runs a model: long enough to find the bugs that there once were, and the same way each time."""

from hypothesis import HealthCheck, Phase, settings

MODEL = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    # With a database behind the model, shrinking takes minutes. Add Phase.shrink to look for a smaller case.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

#: Examples of pure code. How long one takes says nothing where other tests run beside it.
EXAMPLES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
