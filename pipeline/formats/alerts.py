"""The codec of alerts: what was found in a series, where it begins and where it ends."""

from typing import Literal

import msgspec

AlertKind = Literal["spike", "level_shift", "drift", "stuck", "gap", "unit_change"]
Phase = Literal["begin", "end"]


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The begin or the end of a finding. Times are epoch milliseconds."""

    series: str
    kind: AlertKind
    phase: Phase
    ts: int
    """When it was noticed: the time of the newest value, or of the stream."""
    since: int
    """When it began; the same in both records of a finding."""
    size: float
    """How large it is, in what its kind is measured in: the units of the series, a factor, or steps."""
    text: str
    """It as a sentence."""
    target: str | None = None
    """Where a series has several."""


encode_alert = msgspec.json.Encoder().encode
"""A record's value, as JSON."""
decode_alert = msgspec.json.Decoder(Alert).decode
"""The reverse. Raises msgspec.DecodeError."""
