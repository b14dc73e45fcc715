"""How much is fuzzed: a little and always the same in a usual run, much and at random with SELFKD_LONG_TESTS=1."""

from hypothesis import HealthCheck, settings

from tests.fairseq_setup import LONG


def fuzzed(usual=500, long=20_000):
    """Decorator: how many inputs a test gets."""
    return settings(
        max_examples=long if LONG else usual,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
