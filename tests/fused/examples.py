"""How many examples a test draws: a share of what the profile draws."""

from hypothesis import settings


def examples(percent):
    """Settings with so many per cent of the profile's examples: 100 at a commit, 1000 when deep."""
    return settings(max_examples=max(1, settings().max_examples * percent // 100))
