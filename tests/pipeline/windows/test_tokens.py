"""Texts: any of them becomes tokens, records that are none are refused, and no state is kept."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passes import write_pass
from records import Given
from waiting import until

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Event
from pipeline.formats.json import MAX_HEADERS
from pipeline.formats.texts import TextDecoder, TextEvent
from pipeline.log import Commit, Consumer, EventLog
from pipeline.log.connect import connect
from pipeline.log.limits import MAX_VALUE_BYTES
from pipeline.state.checkpoint import Pass
from pipeline.state.records import PartitionRecord, encode_metadata
from pipeline.state.recovery import Topics, recover
from pipeline.windows.grid import WindowConfig
from pipeline.windows.streaming import WindowStore
from pipeline.windows.tokens import PAD, UNKNOWN, Texts, TextWindower, Vocabulary, padded

vocabularies = st.builds(
    Vocabulary,
    tokeniser=st.sampled_from(["word", "char"]),
    lower=st.booleans(),
    digits=st.booleans(),
    max_len=st.integers(1, 12),
    cut=st.sampled_from(["head", "tail"]),
)
WORDS = Vocabulary(entries=("you", "at", "see", "!"))
YOU, AT, SEE, SHOUT = range(2, 6)


@given(vocabularies, st.lists(st.text()), st.text())
def test_every_text_becomes_tokens(vocabulary: Vocabulary, texts: list[str], other: str) -> None:
    fitted = vocabulary.fitted(texts)
    encoder = fitted.encoder()
    for text in (*texts, other):
        tokens = encoder.encode(text)
        assert len(tokens) == len(fitted.split(text))
        assert all(UNKNOWN <= token < len(fitted) for token in tokens)
        wanted = tokens[: fitted.max_len] if fitted.cut == "head" else tokens[-fitted.max_len :]
        assert encoder.cut(text) == (wanted or [UNKNOWN])
    assert all(UNKNOWN not in encoder.encode(text) for text in texts), "what was seen is known"


@given(vocabularies, st.lists(st.text()), st.integers(0, 9), st.randoms())
def test_frequent_tokens_come_first_and_then_by_name(
    vocabulary: Vocabulary, texts: list[str], most: int, random: Random
) -> None:
    counts = Counter(token for text in texts for token in vocabulary.split(text))
    fitted = vocabulary.fitted(texts, most)
    kept = sorted(counts, key=lambda token: (-counts[token], token))
    assert list(fitted.entries) == kept[:most]
    random.shuffle(texts)
    assert fitted == vocabulary.fitted(texts, most), "whatever the order of the texts"
    assert len(fitted) == len(fitted.entries) + 2
    assert msgspec.convert(msgspec.to_builtins(fitted), Vocabulary) == fitted


@given(st.text(), st.text())
def test_known_characters_round_trip(text: str, more: str) -> None:
    exact = Vocabulary(tokeniser="char", lower=False, digits=False).fitted([text, more])
    assert "".join(map(exact.decoded, exact.encoder().encode(text))) == text


@given(st.text())
def test_known_words_round_trip(text: str) -> None:
    fitted = Vocabulary(lower=False, digits=False).fitted([text])
    words = [fitted.decoded(token) for token in fitted.encoder().encode(text)]
    assert words == fitted.split(text)
    assert "".join(words) == "".join(text.split()), "nothing but white space is left out"


def test_unknown_tokens_and_empty_texts_are_the_unknown_token() -> None:
    encoder = WORDS.encoder()
    assert encoder.encode("see nobody at you") == [SEE, UNKNOWN, AT, YOU]
    assert encoder.encode("") == []
    for nothing in ("", " \n\t"):
        assert encoder.cut(nothing) == [UNKNOWN]
    assert encoder.batch(["", "see"]).x.tolist() == [[UNKNOWN], [SEE]]
    assert encoder.batch(["", "see"]).lengths.tolist() == [1, 1]
    assert (WORDS.decoded(PAD), WORDS.decoded(UNKNOWN), WORDS.decoded(YOU)) == ("", "", "you")


def test_words_and_punctuation_marks_are_tokens() -> None:
    assert WORDS.split("don't, 'tis you'") == ["don't", ",", "'", "tis", "you", "'"]
    assert WORDS.split("See   YOU,\nat 5!!") == ["see", "you", ",", "at", "0", "!", "!"]
    assert Vocabulary(lower=False, digits=False).split("Größe: £10.5") == ["Größe", ":", "£", "10", ".", "5"]
    assert Vocabulary(tokeniser="char").split("A b1") == ["a", " ", "b", "0"]


def test_case_and_digits_are_kept_on_request() -> None:
    texts = ["call 0800", "CALL 1234"]
    assert Vocabulary().fitted(texts).entries == ("0000", "call")
    assert Vocabulary(lower=False).fitted(texts).entries == ("0000", "CALL", "call")
    assert Vocabulary(digits=False).fitted(texts).entries == ("call", "0800", "1234")


def test_long_texts_are_truncated_at_either_end() -> None:
    text = "see you at you"
    assert Vocabulary(entries=WORDS.entries, max_len=3).encoder().cut(text) == [SEE, YOU, AT]
    assert Vocabulary(entries=WORDS.entries, max_len=3, cut="tail").encoder().cut(text) == [YOU, AT, YOU]
    assert Vocabulary(entries=WORDS.entries, max_len=4, cut="tail").encoder().cut(text) == [SEE, YOU, AT, YOU]


def test_max_len_0_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_len: 0 is less than 1$"):
        Vocabulary(max_len=0)


@given(st.lists(st.lists(st.integers(1, 2**40), min_size=1, max_size=9)))
def test_rows_are_padded_on_the_right(rows: list[list[int]]) -> None:
    x, lengths = padded(rows)
    longest = max(map(len, rows), default=1)
    assert x.shape == (len(rows), longest)
    assert x.dtype == lengths.dtype == np.int64
    assert x.tolist() == [row + [PAD] * (longest - len(row)) for row in rows]
    assert lengths.tolist() == list(map(len, rows))


def decoded(body: object, key: bytes | None = None) -> TextEvent:
    return TextDecoder().decode(Given(body if isinstance(body, bytes) else json.dumps(body).encode(), key))[0]


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=32).filter(str.strip)
ids = names | st.integers(-(2**80), 2**80)


@given(ids, st.text(), st.none() | st.binary())
def test_a_text_round_trips(name: str | int, text: str, key: bytes | None) -> None:
    event = decoded({"id": name, "text": text, "other": [1]}, key)
    assert event == TextEvent(name, text, str(name).encode() if key is None else key)
    assert type(event.id) is type(name)


@given(names, st.text())
def test_the_id_defaults_to_the_key(key: str, text: str) -> None:
    for body in ({"text": text}, {"text": text, "id": None}):
        assert decoded(body, key.encode()) == TextEvent(key, text, key.encode())


REFUSED: list[tuple[str, object, bytes | None]] = [
    ("malformed_json", b"", b"k"),
    ("malformed_json", b"see you", b"k"),
    ("malformed_json", b'{"text": "see"', b"k"),
    ("malformed_json", b'{"text": "see"} {}', b"k"),
    ("schema", b"null", b"k"),
    ("schema", ["see you"], b"k"),
    ("schema", "see you", b"k"),
    ("schema", {"id": 1}, b"k"),
    ("schema", {"text": None}, b"k"),
    ("schema", {"text": 5}, b"k"),
    ("schema", {"text": ["see"]}, b"k"),
    ("schema", {"text": "see", "id": 1.5}, b"k"),
    ("schema", {"text": "see", "id": True}, b"k"),
    ("schema", {"text": "see", "id": ["a"]}, b"k"),
    ("schema", {"text": "see", "id": ""}, b"k"),
    ("schema", {"text": "see", "id": " "}, b"k"),
    ("schema", {"text": "see"}, b""),
    ("schema", {"text": "see"}, b" "),
    ("bad_key", {"text": "see"}, None),
    ("bad_key", {"text": "see", "id": "a\nb"}, b"k"),
    ("bad_key", {"text": "see"}, b"a\x00b"),
    ("bad_key", {"text": "see", "id": "x" * 129}, b"k"),
    ("bad_key", {"text": "see", "id": "ß" * 65}, b"k"),
    ("bad_key", {"text": "see", "id": 10**128}, b"k"),
    ("bad_encoding", {"text": "see"}, b"\xff"),
    ("bad_encoding", b'{"text": "\xff"}', b"k"),
    ("bad_encoding", b'{"text": "\\ud800 and no other half"}', b"k"),
    ("out_of_range", b'{"text": "see", "id": %s}' % (b"1" * 5000), b"k"),
    ("too_large", b'{"text": "%s"}' % (b"x" * MAX_VALUE_BYTES), b"k"),
    ("too_deep", b'{"text": "see", "other": %s' % (b"[" * 5000), b"k"),
]


@pytest.mark.parametrize(("reason", "body", "key"), REFUSED)
def test_invalid_texts_are_refused_with_their_reason(reason: str, body: object, key: bytes | None) -> None:
    with pytest.raises(InvalidEvent) as refused:
        decoded(body, key)
    assert refused.value.reason == reason
    assert refused.value.detail
    assert "\n" not in refused.value.detail


def test_the_longest_text_passes_and_too_many_headers_do_not() -> None:
    body = b'{"text": "%s"}' % (b"x" * (MAX_VALUE_BYTES - 12))
    assert len(decoded(body, b"k").text) == MAX_VALUE_BYTES - 12
    with pytest.raises(InvalidEvent, match="too_large"):
        TextDecoder().decode(Given(b'{"text": "see"}', b"k", headers=[("h", b"")] * (MAX_HEADERS + 1)))


@given(st.binary(max_size=64), st.none() | st.binary(max_size=8))
def test_any_bytes_are_a_text_or_refused(value: bytes, key: bytes | None) -> None:
    with suppress(InvalidEvent):
        assert isinstance(decoded(value, key).text, str)


events = st.builds(TextEvent, ids, st.text(st.sampled_from("see you at! ")), st.binary(max_size=4))


def pushed(windower: TextWindower, some: Sequence[TextEvent], first: int = 0) -> Texts:
    for offset, event in enumerate(some, start=first):
        windower.push(event, offset)
    return windower.take()


@given(st.lists(events, max_size=9), st.data())
def test_texts_are_taken_in_the_order_of_pushing(some: list[TextEvent], data: st.DataObject) -> None:
    windower, encoder = TextWindower(WORDS.encoder()), WORDS.encoder()
    taken = pushed(windower, some, 5)
    assert len(taken) == len(some)
    assert taken.ids == [event.id for event in some]
    assert taken.keys == [event.key for event in some]
    assert taken.offset.tolist() == list(range(5, 5 + len(some)))
    assert taken.offset.dtype == np.int64
    assert windower.counts.accepted == len(some)
    assert len(windower.take()) == 0
    assert len(taken) == len(some), "a take is not undone by the next"
    start = data.draw(st.integers(0, len(some)))
    stop = data.draw(st.integers(start, len(some) + 3))
    x, lengths = taken.arrays(start, stop).values()
    rows = [encoder.cut(event.text) for event in some[start:stop]]
    assert x.tolist() == padded(rows).x.tolist()
    assert lengths.tolist() == list(map(len, rows))
    assert list(taken.arrays(start, stop)) == ["x", "lengths"]


@given(st.lists(st.lists(events, max_size=4), min_size=1, max_size=4))
def test_parts_are_concatenated_in_order(parts: list[list[TextEvent]]) -> None:
    apart, whole = TextWindower(WORDS.encoder()), [event for part in parts for event in part]
    starts = np.cumsum([0, *map(len, parts)])
    joined = Texts.concat([pushed(apart, part, start) for part, start in zip(parts, starts[:-1].tolist(), strict=True)])
    at_once = pushed(TextWindower(WORDS.encoder()), whole)
    assert (joined.ids, joined.keys, joined.tokens) == (at_once.ids, at_once.keys, at_once.tokens)
    assert joined.offset.tolist() == at_once.offset.tolist()


def test_texts_leave_no_state() -> None:
    windower = TextWindower(WORDS.encoder())
    windower.push(TextEvent("a", "see you", b"a"))
    assert windower.config is None
    assert windower.dirty_count() == 0
    assert not windower.snapshot()
    assert len(windower.take()) == 1, "what waits is no state"
    assert windower.states(["a"]) == [None]
    store = WindowStore(WindowConfig(seq_len=2))
    store.push(Event("a", 0, (1.0,)))
    state = store.state("a")
    assert state is not None
    with pytest.raises(KeyError):
        windower.restore({"a": state})


def joined(log: EventLog) -> Consumer:
    """A member that has the topic's one partition."""
    consumer = log.consumer("labels", "texts")
    until(lambda: 0 in consumer.poll(0.5, 10).assigned)
    return consumer


def test_a_checkpoint_without_states_has_the_position(tmp_path: Path) -> None:
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        log.create_topic("texts", 1)
        log.create_topic("labels-state", 1, compacted=True)
        with closing(log.producer()) as producer:
            for number in range(9):
                producer.send("texts", 0, b"%d" % number, b'{"text": "see you"}')
            producer.flush()
        windower, consumer, producer = TextWindower(WORDS.encoder()), joined(log), log.producer("labels")
        topics = Topics.look_up(log, "texts", "labels-state")
        new = recover(log, topics, {0: windower}, consumer.committed([0]))[0]
        assert (new.replay_from, new.position, new.notes) == (None, None, ())
        windower.push(TextEvent("0", "see you", b"0"))
        record = PartitionRecord(position=4, partitions=1, topic_id=log.topic_id("texts"))
        write_pass(producer, consumer, "labels-state", {0: Pass(windower, record, {})})
        (start, end) = log.bounds("labels-state")[0]
        keys = [record.key for records in log.read("labels-state", 0, start, end) for record in records]
        assert keys == [b"partition"]
        consumer.commit({0: Commit(7, encode_metadata(4))})
        producer.close()
        consumer.close()

        consumer, again = joined(log), TextWindower(WORDS.encoder())
        topics = Topics.look_up(log, "texts", "labels-state")
        recovered = recover(log, topics, {0: again}, consumer.committed([0]))[0]
        assert (recovered.replay_from, recovered.position, recovered.corrupt, recovered.notes) == (4, 7, 0, ())
        consumer.seek(0, 7)
        (record_7, *_) = consumer.poll(5, 10).records[0]
        assert record_7.offset == 7
        assert TextDecoder().decode(record_7) == (TextEvent("7", "see you", b"7"),)
        assert len(again.take()) == 0
        consumer.close()
