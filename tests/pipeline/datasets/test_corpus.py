"""Files of labelled texts: what is found in them, what is left out, and what is wrong with them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.corpus import LABELS, MOST_LABELS, TEXTS, Corpus, read_corpus
from pipeline.datasets.tables import read_text
from tidecast.errors import DataError

Write = Callable[[str, str | bytes], str]
ROWS = [("see you at five", "ham"), ("win a prize, now", "spam"), ('say "yes"', "ham")]
CSV = 'text,label\nsee you at five,ham\n"win a prize, now",spam\n"say ""yes""",ham\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and gives its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def rows(corpus: Corpus) -> list[tuple[str, str]]:
    return list(zip(corpus.texts, corpus.labels, strict=True))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sms.csv", CSV),
        ("sms.csv", CSV.replace("\n", "\r\n")),
        ("sms", CSV),
        ("sms.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("semicolons.csv", 'label;text\nham;see you at five\nspam;"win a prize, now"\nham;"say ""yes"""\n'),
        ("sms.tsv", 'label\ttext\nham\tsee you at five\nspam\twin a prize, now\nham\t"say ""yes"""\n'),
        ("sms.jsonl", "".join(json.dumps({"id": 1, "text": text, "label": label}) + "\n" for text, label in ROWS)),
        ("sms", "".join(json.dumps({"label": label, "text": text}) + "\n" for text, label in ROWS)),
    ],
)
def test_the_format_is_detected_by_extension_or_content(write: Write, name: str, content: str | bytes) -> None:
    corpus = read_corpus(write(name, content))
    assert rows(corpus) == ROWS
    assert (corpus.groups, corpus.notes) == (None, ())


def test_a_parquet_file(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS, ["text", "label"], orient="row").with_columns(user=pl.Series([7, 8, 7]))
    frame.write_parquet(tmp_path / "sms.parquet")
    corpus = read_corpus(str(tmp_path / "sms.parquet"), group="user")
    assert rows(corpus) == ROWS
    assert corpus.groups == ["7", "8", "7"]


@given(st.lists(st.tuples(st.text(), st.sampled_from(["yes", "no"])), min_size=1, max_size=9))
def test_texts_round_trip(tmp_path_factory: pytest.TempPathFactory, given_rows: list[tuple[str, str]]) -> None:
    wanted = [("first", "yes"), *[row for row in given_rows if row[0].strip()], ("last", "no")]
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in wanted))
    assert rows(read_corpus(str(path))) == wanted


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("label", LABELS)
def test_columns_are_found_by_their_names(write: Write, text: str, label: str) -> None:
    content = f"n,{label.upper()}, {text.title()} \n1,ham,see you\n2,spam,win\n"
    assert rows(read_corpus(write("named.csv", content))) == [("see you", "ham"), ("win", "spam")]


def test_the_first_usual_name_is_taken_unless_a_column_is_given(write: Write) -> None:
    path = write("several.csv", "body,text,type,label,who\nb1,t1,x,l1,a\nb2,t2,y,l2,b\n")
    assert rows(read_corpus(path)) == [("t1", "l1"), ("t2", "l2")]
    corpus = read_corpus(path, "Body", "type", "WHO")
    assert (rows(corpus), corpus.groups) == ([("b1", "x"), ("b2", "y")], ["a", "b"])


def test_numbers_count_the_columns_of_a_file_without_a_header(write: Write) -> None:
    for name, content in (
        ("bare.csv", "1,ham,see you\n2,spam,win\n"),
        ("bare.tsv", "1\tham\tsee you\n2\tspam\twin\n"),
    ):
        corpus = read_corpus(write(name, content), "3", "2", "1")
        assert (rows(corpus), corpus.groups) == ([("see you", "ham"), ("win", "spam")], ["1", "2"])


def test_a_number_may_be_a_name(write: Write) -> None:
    path = write("years.csv", "label,2024\nham,see you\nspam,win\n")
    assert rows(read_corpus(path, "2024", "label")) == [("see you", "ham"), ("win", "spam")]


def test_quotes_between_tabs_are_literal(write: Write) -> None:
    content = 'ham\tsay "yes" now\nspam\t"win" a prize\nham\t5" or 6"\nham\tan "open end\n'
    assert rows(read_corpus(write("quotes.tsv", content), "2", "1")) == [
        ('say "yes" now', "ham"),
        ('"win" a prize', "spam"),
        ('5" or 6"', "ham"),
        ('an "open end', "ham"),
    ]


def test_a_quote_that_is_closed_rows_later_joins_no_rows(write: Write) -> None:
    content = 'ham\t"see you\nspam\twin\nham\tat five"\nspam\tnow\n'
    found = rows(read_corpus(write("quotes.tsv", content), "2", "1"))
    assert [label for _, label in found] == ["ham", "spam", "ham", "spam"]


def test_rows_without_a_text_or_a_label_are_skipped_and_counted(write: Write) -> None:
    corpus = read_corpus(write("holes.csv", 'text,label\nsee,ham\n,ham\nwin, spam \n"  ",ham\nno label,\nno, \n'))
    assert rows(corpus) == [("see", "ham"), ("win", "spam")]
    assert corpus.notes == ("4 of 6 rows have no text or no label: skipped",)
    lines = '{"text": "see", "label": 0}\n{"text": null, "label": 1}\n{"label": 1}\n{"text": "win", "label": 1}\n'
    corpus = read_corpus(write("holes.jsonl", lines))
    assert (rows(corpus), len(corpus.notes)) == ([("see", "0"), ("win", "1")], 1)


def test_rows_without_a_group_are_one_group(write: Write) -> None:
    content = '{"text": "see", "label": "a", "g": 1}\n{"text": "win", "label": "b"}\n{"text": "no", "label": "b"}\n'
    assert read_corpus(write("groups.jsonl", content), group="g").groups == ["1", "", ""]


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("words,kind\na,b\nc,d\n", (), r"which column is the text among 'words', 'kind'\? Name it with --text-column"),
        ("text,kind\na,b\nc,d\n", (), r"which column is the label among 'text', 'kind'\? Name it with --label-column"),
        (CSV, ("nope",), r"no column 'nope' among 'text', 'label'\? Name it with --text-column"),
        (CSV, ("text", "nope"), r"no column 'nope' among 'text', 'label'\? Name it with --label-column"),
        (CSV, ("text", "label", "nope"), r"no column 'nope' among 'text', 'label'\? Name it with --group-column"),
        ("a,b\nc,d\n", ("3", "1"), r"no column '3' among '1', '2'\? Name it with --text-column"),
        ("text,label\na,ham\nb,ham\n", (), "column 'label' has 1 different labels"),
        ("text,label\na,\n,ham\n", (), "column 'label' has 0 different labels"),
        ("text,label\n", (), "no rows below the header"),
        ("text,label\na,ham\nb\n", (), "row 3: 1 cells for 2 columns: none for column 'label'"),
        ("", (), "the file is empty"),
        (b"text,label\n\xff,ham\n", (), "row 2: not UTF-8 text"),
    ],
)
def test_a_faulty_file_is_one_line(write: Write, content: str | bytes, columns: tuple[str, ...], message: str) -> None:
    path = write("wrong.csv", content)
    with pytest.raises(DataError, match=f"^{path}: {message}") as wrong:
        read_corpus(path, *columns)
    assert "\n" not in str(wrong.value)


def test_too_few_or_too_many_labels_are_refused(write: Write) -> None:
    lines = [f"text {number},{number}" for number in range(MOST_LABELS + 1)]
    with pytest.raises(DataError, match="column 'label' has 1,001 different labels"):
        read_corpus(write("many.csv", "\n".join(["text,label", *lines])))
    assert len(set(read_corpus(write("some.csv", "\n".join(["text,label", *lines[1:]]))).labels)) == MOST_LABELS


def test_a_plain_text_is_read_whole(write: Write) -> None:
    content = "Größe\r\n\n end "
    assert read_text(write("plain.txt", content)) == content
    assert read_text(write("plain.txt.gz", gzip.compress(content.encode(), mtime=0))) == content
    with pytest.raises(DataError, match="the file is empty"):
        read_text(write("nothing.txt", " \n"))
