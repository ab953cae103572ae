"""A request's parameters, checked."""

from collections.abc import Mapping

MOST_TEXT = 500
"""Most characters of a parameter."""


class BadRequest(Exception):
    """A parameter that can't be."""


class NotFound(Exception):
    """What is asked for is not there."""


class Query:
    """The parameters of a request."""

    def __init__(self, given: Mapping[str, str]) -> None:
        for name, value in given.items():
            if len(name) > MOST_TEXT or len(value) > MOST_TEXT:
                raise BadRequest(f"a parameter has more than {MOST_TEXT} characters")
        self._given = given

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """What tells it from others."""
        return tuple(sorted(self._given.items()))

    def text(self, name: str) -> str | None:
        """A text; None if it is not given, or empty."""
        return self._given.get(name) or None

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        """One of several words, the first if it is not given. Raises BadRequest."""
        found = self._given.get(name) or choices[0]
        if found not in choices:
            raise BadRequest(f"{name}: one of {', '.join(choices)}")
        return found

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number. Raises BadRequest."""
        text = self._given.get(name)
        if not text:
            return default
        try:
            found = int(text) if text.isascii() and len(text) < 20 else None
        except ValueError:
            found = None
        if found is None or not least <= found <= most:
            raise BadRequest(f"{name}: a whole number from {least} to {most}")
        return found

    def time(self, name: str) -> int | None:
        """A time in epoch milliseconds; None if it is not given. Raises BadRequest."""
        text = self._given.get(name)
        if not text:
            return None
        return self.number(name, 0, -(2**53), 2**53)
