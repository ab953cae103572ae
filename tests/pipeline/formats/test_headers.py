"""The trace context of a record, as it goes on to what comes of it."""

from pipeline.formats.headers import trace_context

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
