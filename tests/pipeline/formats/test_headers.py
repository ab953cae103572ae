"""The provenance of a forecast, and the trace context that goes on from a record to what comes of it."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.headers import (
    INPUT,
    MODEL,
    OFFSETS,
    PROVENANCE,
    VERSION,
    Provenance,
    parse_origin,
    read_headers,
    trace_context,
)

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_goes_on_and_nothing_else_does() -> None:
    headers = [("a", b"1"), ("traceparent", PARENT), ("tracestate", b"x=1"), ("Traceparent", b"2"), ("b", None)]
    assert trace_context(headers) == [("traceparent", PARENT), ("tracestate", b"x=1")]
    assert trace_context([]) == []


def test_of_several_the_last_one_counts() -> None:
    assert trace_context([("traceparent", b"old"), ("traceparent", PARENT)]) == [("traceparent", PARENT)]


def test_what_is_too_long_or_has_no_parent_is_left_out() -> None:
    assert trace_context([("tracestate", b"x=1")]) == []
    assert trace_context([("traceparent", b"0" * 129), ("tracestate", b"x=1")]) == []
    assert trace_context([("traceparent", None), ("tracestate", b"x=1")]) == []
    assert trace_context([("traceparent", PARENT), ("tracestate", b"x" * 513)]) == [("traceparent", PARENT)]


texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(texts, texts, st.integers(0, 2**62), st.integers(0, 2**62))
def test_provenance_is_one_header_and_read_as_several(version: str, topic: str, first: int, last: int) -> None:
    fields = {MODEL: "ab" * 32, VERSION: version, INPUT: f"{topic}/3"}
    name, packed = Provenance(fields).of(first, last)
    assert name == PROVENANCE
    assert read_headers([("mine", b"1"), (name, packed)]) == {**fields, OFFSETS: f"{first}-{last}", "mine": "1"}


def test_headers_of_earlier_versions_and_of_others_are_read() -> None:
    old = [(MODEL, b"ab"), (INPUT, b"power/3"), (OFFSETS, b"1-96")]
    found = read_headers([*old, (PROVENANCE, b"not JSON"), ("none", None), ("other", b"\xff")])
    assert found == {MODEL: "ab", INPUT: "power/3", OFFSETS: "1-96", "none": "", "other": "\ufffd"}
    assert parse_origin(found[INPUT], found[OFFSETS]) == ("power", 3, 1, 96)
