"""The codec of alerts: what was found in a series, where it begins and where it ends."""

from typing import Literal

import msgspec

AlertKind = Literal["spike", "level_shift", "drift", "stuck", "gap", "unit_change"]
Phase = Literal["begin", "end"]
Outcome = Literal["back", "settled", "replaced"]


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The begin or the end of a finding. Times are epoch milliseconds.

    What `value`, `usual` and `size` are depends on the kind: docs/operations.md has a table.
    """

    series: str
    kind: AlertKind
    phase: Phase
    ts: int
    """When it was noticed: the time of the newest value, or of the stream."""
    since: int
    """When it began; the same in both records of a finding."""
    size: float
    """How large it is, in what its kind is measured in: the units of the series, a factor, or steps."""
    value: float | None = None
    """What was measured. None in a gap, and in records of earlier versions."""
    usual: float | None = None
    """What had been forecast, or was usual. None in records of earlier versions."""
    outcome: Outcome | None = None
    """Of an end: all is as it was before, what is now is taken as usual, or another model version forecasts."""
    text: str
    """It as a sentence."""
    target: str | None = None
    """Where a series has several."""


encode_alert = msgspec.json.Encoder().encode
"""A record's value, as JSON."""
decode_alert = msgspec.json.Decoder(Alert).decode
"""The reverse. Raises msgspec.DecodeError."""
