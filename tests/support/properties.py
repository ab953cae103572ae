"""How many examples a property that is slow to test gets."""

from hypothesis import settings


def examples(full: int) -> int:
    """So many, or as few as the profile gives to every property (`--hypothesis-profile=quick`)."""
    return min(full, settings().max_examples)
