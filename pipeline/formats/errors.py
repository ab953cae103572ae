"""InvalidEvent: the error of a record that cannot be used, with the reason that its dead letter carries."""

import os
from typing import Literal, get_args

from tidecast.errors import TidecastError

Reason = Literal[
    "malformed_json",
    "bad_encoding",
    "too_deep",
    "schema",
    "out_of_range",
    "bad_time",
    "bad_key",
    "too_large",
    "undecodable_record",
    "series_limit",
    "late",
]
REASONS: frozenset[Reason] = frozenset(get_args(Reason))
"""Every reason: `late` goes to the late topic, all others to the dead-letter topic."""

MAX_DETAIL = 300
"""The longest detail, in characters; a longer one is truncated."""


class InvalidEvent(TidecastError):
    """An invalid record. `reason` is one word for programs, `detail` one line for people."""

    exit_code = os.EX_DATAERR

    def __init__(self, reason: Reason, detail: str) -> None:
        detail = detail if len(detail) <= MAX_DETAIL else f"{detail[:MAX_DETAIL]}..."
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
