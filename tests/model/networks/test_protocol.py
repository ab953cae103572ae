"""The protocol that every task keeps: real steps, a state that goes on, two dimensions at the head, no broadcast."""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import examples
from torch import Tensor, nn
from torch.nn import functional

from model.card import Setting, Task
from model.networks.protocol import (
    IGNORED,
    SELECTIONS,
    Batch,
    Core,
    Head,
    Select,
    Selection,
    binary_cross_entropy,
    cross_entropy,
    loss,
    squared_error,
)
from model.networks.text import Classifier, NextToken, TokenDropout, backwards, character_ngrams
from tidecast.errors import ShapeError

Network = TypeVar("Network", bound=nn.Module)

EXACT, CLOSE = 0.0, 1e-6
TOKENS = 9
QUICK = settings(max_examples=examples(40))
lengths = st.lists(st.integers(1, 8), min_size=1, max_size=5)
junk = st.sampled_from([0.0, 1e9, -1e9, float("nan"), float("inf")])


def fresh(make: Callable[[], Network], seed: int = 3) -> Network:
    """A network in evaluation mode, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def text(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(1, TOKENS, shape))


def padded(x: Tensor, lengths_B: Tensor, steps: int) -> Tensor:
    """Tokens with nothing but padding after their lengths, and so many steps more of it."""
    real = torch.arange(x.shape[1]) < lengths_B.unsqueeze(1)
    return torch.cat([torch.where(real, x, 0), torch.zeros(len(x), steps, dtype=torch.int64)], dim=1)


def equal(given: Tensor, wanted: Tensor, most: float) -> None:
    """The same shape, and no value differs by more than `most`."""
    torch.testing.assert_close(given, wanted, rtol=0.0, atol=most)


def setting(**given: Setting) -> dict[str, Setting]:
    """Hyperparameters of a network of texts."""
    dropouts = dict.fromkeys(("dropout", "token_dropout", "embedding_dropout"), 0.0)
    return {"hidden": 5, "layers": 1, "embedding": 4, "both_ways": True, "members": 1} | dropouts | given


@QUICK
@given(lengths, st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(1, 7), junk)
def test_padding_changes_neither_the_core_s_outputs_nor_its_state(
    sizes: list[int], width: int, hidden: int, layers: int, more: int, filler: float
) -> None:
    steps, rows = max(sizes), len(sizes)
    core, lengths_B = fresh(lambda: Core(width, hidden, layers)), torch.tensor(sizes)
    x_BSE = noise(rows, steps, width)
    before = noise(layers, rows, hidden, seed=1), noise(layers, rows, hidden, seed=2)
    real = torch.arange(steps) < lengths_B.unsqueeze(1)
    x_BSE[~real] = filler
    out, state = core(x_BSE, before, lengths_B)
    longer, state_after_more = core(
        torch.cat([x_BSE, torch.full((rows, more, width), filler)], dim=1), before, lengths_B
    )
    equal(longer[:, :steps], out, EXACT)
    assert not longer[:, steps:].any()
    assert not out[~real].any(), "after a row's end there is nothing"
    for part, wanted in zip(state_after_more, state, strict=True):
        equal(part, wanted, EXACT)
    for row, size in enumerate(sizes):
        alone, (h, c) = core(x_BSE[row : row + 1, :size], tuple(part[:, row : row + 1] for part in before))
        equal(out[row : row + 1, :size], alone, CLOSE)
        equal(state[0][:, row : row + 1], h, CLOSE)
        equal(state[1][:, row : row + 1], c, CLOSE)


@QUICK
@given(lengths, st.integers(0, 7), st.integers(1, 3))
def test_outputs_at_real_steps_need_no_lengths(sizes: list[int], more: int, layers: int) -> None:
    core, lengths_B = fresh(lambda: Core(3, 5, layers)), torch.tensor(sizes)
    x_BSE = noise(len(sizes), max(sizes) + more, 3)
    for mode in ("all", "last"):
        select = Select(mode)
        equal(select(core(x_BSE)[0], lengths_B), select(core(x_BSE, None, lengths_B)[0], lengths_B), CLOSE)


@QUICK
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 6), st.integers(1, 3))
def test_the_last_output_of_full_rows_is_the_state(rows: int, steps: int, hidden: int, layers: int) -> None:
    core, full = fresh(lambda: Core(2, hidden, layers)), torch.full((rows,), steps)
    for given_lengths in (None, full):
        out_BSH, (h_LBH, _) = core(noise(rows, steps, 2), None, given_lengths)
        for selected in (Select("last")(out_BSH, full), Select("last")(out_BSH), out_BSH[:, -1]):
            equal(selected, h_LBH[-1], EXACT)


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_between_layers_needs_two_of_them(layers: int) -> None:
    core = fresh(lambda: Core(2, 64, layers, dropout=0.9)).train()
    first, _ = core(noise(1, 3, 2))
    again, _ = core(noise(1, 3, 2))
    assert torch.equal(first, again) == (layers == 1)


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    """Where a text of some steps is cut: 0, ..., its length."""
    steps = draw(st.integers(1, 12))
    return [0, *sorted(draw(st.sets(st.integers(1, steps)) if steps > 1 else st.just(set())) - {steps}), steps]


@QUICK
@given(cuts(), st.integers(1, 3), st.integers(1, 4))
def test_one_pass_is_chunks_with_the_state_carried(places: list[int], layers: int, rows: int) -> None:
    core, x_BSE = fresh(lambda: Core(3, 6, layers)), noise(rows, places[-1], 3)
    whole, whole_state = core(x_BSE)
    parts, state = [], None
    for start, stop in itertools.pairwise(places):
        out, state = core(x_BSE[:, start:stop], state)
        parts.append(out)
    equal(torch.cat(parts, dim=1), whole, CLOSE)
    assert state is not None
    for part, wanted in zip(state, whole_state, strict=True):
        equal(part, wanted, CLOSE)


@QUICK
@given(cuts(), st.integers(1, 3), st.integers(1, 4), st.sampled_from([0, 4]))
def test_a_text_continued_in_chunks_is_the_text_in_one(
    places: list[int], layers: int, rows: int, embedding: int
) -> None:
    model = fresh(lambda: NextToken(TOKENS, setting(layers=layers, embedding=embedding)))
    x_BS = text(rows, places[-1])
    logits, h, c = model(x_BS, *model.start(rows))
    assert logits.shape == (rows, places[-1], TOKENS)
    parts, state = [], None
    for start, stop in itertools.pairwise(places):
        chunk = x_BS[:, start:stop]
        out, state = model.outputs(Batch(task="next_token", x=chunk, y=chunk, carried=start > 0), state)
        parts.append(out)
    equal(torch.cat(parts, dim=1), logits, CLOSE)
    assert state is not None
    equal(state[0], h, CLOSE)
    equal(state[1], c, CLOSE)


def test_only_a_carried_batch_goes_on_and_no_gradient_does() -> None:
    model = fresh(lambda: NextToken(TOKENS, setting()))
    x_BS = text(2, 5)
    anew, state = model.outputs(Batch(task="next_token", x=x_BS, y=x_BS), None)
    assert state is not None
    assert anew.requires_grad
    assert not any(part.requires_grad for part in state)
    equal(model.outputs(Batch(task="next_token", x=x_BS, y=x_BS), state)[0], anew, EXACT)
    carried, _ = model.outputs(Batch(task="next_token", x=x_BS, y=x_BS, carried=True), state)
    assert not torch.allclose(carried, anew)
    equal(model.outputs(Batch(task="next_token", x=x_BS, y=x_BS, carried=True), None)[0], anew, EXACT)


OUT = torch.tensor([[[1.0, 10], [2, 20], [3, 30]], [[-4, -40], [-5, 50], [-6, -60]]])
FULL: dict[Selection, list[list[float]]] = {
    "all": [[1, 10], [2, 20], [3, 30], [-4, -40], [-5, 50], [-6, -60]],
    "last": [[3, 30], [-6, -60]],
    "mean_max": [[2, 20, 3, 30], [-5, -50 / 3, -4, 50]],
    "last_padded": [[3, 30], [-6, -60]],
}
SHORT: dict[Selection, list[list[float]]] = {
    "all": [[1, 10], [2, 20], [3, 30], [-4, -40]],
    "last": [[3, 30], [-4, -40]],
    "mean_max": [[2, 20, 3, 30], [-4, -40, -4, -40]],
    "last_padded": [[3, 30], [-6, -60]],
}


@pytest.mark.parametrize("mode", SELECTIONS)
def test_each_selection_by_hand(mode: Selection) -> None:
    equal(Select(mode)(OUT), torch.tensor(FULL[mode], dtype=torch.float32), CLOSE)
    equal(Select(mode)(OUT, torch.tensor([3, 3])), torch.tensor(FULL[mode], dtype=torch.float32), CLOSE)
    equal(Select(mode)(OUT, torch.tensor([3, 1])), torch.tensor(SHORT[mode], dtype=torch.float32), CLOSE)


def test_there_is_no_other_selection() -> None:
    assert set(SELECTIONS) == set(get_args(Selection))
    with pytest.raises(ValueError, match=r"^select: 'first' is none of"):
        Select("first")  # type: ignore[arg-type]


@QUICK
@given(lengths, st.integers(1, 4), st.integers(0, 6), junk, st.sampled_from(["all", "last", "mean_max"]))
def test_a_selection_sees_real_steps_alone(
    sizes: list[int], hidden: int, more: int, filler: float, mode: Selection
) -> None:
    out_BSH = noise(len(sizes), max(sizes), hidden)
    rows = [out_BSH[row, :size] for row, size in enumerate(sizes)]
    wanted = {
        "all": torch.cat(rows),
        "last": torch.stack([row[-1] for row in rows]),
        "mean_max": torch.stack([torch.cat([row.mean(0), row.max(0).values]) for row in rows]),
    }[mode]
    filled = torch.full((len(sizes), max(sizes) + more, hidden), filler)
    for row, size in enumerate(sizes):
        filled[row, :size] = rows[row]
    equal(Select(mode)(filled, torch.tensor(sizes)), wanted, CLOSE)


@QUICK
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 3))
def test_a_head_on_rows_is_a_linear_layer_on_steps(rows: int, steps: int, hidden: int, outputs: int) -> None:
    head, out_BSH = fresh(lambda: Head(hidden, outputs)), noise(rows, steps, hidden)
    on_steps = functional.linear(out_BSH, head.weight, head.bias)
    equal(head(Select("all")(out_BSH)), on_steps.reshape(-1, outputs), CLOSE)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (1, 1, 4)])
def test_the_head_takes_two_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=rf"the head takes \(N,H\), not \({shape[0]},"):
        Head(4, 2)(noise(*shape))


def test_the_last_column_of_a_view_is_the_last_step_for_one_output_only() -> None:
    """Why the last step is selected before the head, and not found in a view of what it gave for all steps."""
    out_BSH, full = noise(4, 6, 5), torch.full((4,), 6)
    one, two = fresh(lambda: Head(5, 1)), fresh(lambda: Head(5, 2))
    viewed = one(Select("all")(out_BSH)).view(4, -1)[:, -1]
    equal(viewed.unsqueeze(1), one(Select("last")(out_BSH, full)), CLOSE)
    viewed, selected = two(Select("all")(out_BSH)).view(4, -1)[:, -1], two(Select("last")(out_BSH, full))
    assert viewed.shape != selected.shape
    equal(viewed, selected[:, 1], CLOSE)
    batch = Batch(task="classify", x=text(4, 6), y=torch.tensor([0, 1, 1, 0]), lengths=full)
    assert torch.isfinite(loss(selected, batch)[0])
    with pytest.raises(ShapeError):
        loss(viewed, batch)


@QUICK
@given(
    lengths,
    st.integers(1, 9),
    st.integers(2, 5),
    st.sampled_from(["last", "mean_max"]),
    st.fixed_dictionaries(
        {
            "embedding": st.sampled_from([0, 3]),
            "layers": st.integers(1, 2),
            "both_ways": st.booleans(),
            "members": st.integers(1, 2),
        }
    ),
)
def test_padding_changes_no_label(
    sizes: list[int], more: int, labels: int, select: Selection, chosen: dict[str, Setting]
) -> None:
    model = fresh(lambda: Classifier(TOKENS, labels, select, setting(**chosen)))
    lengths_B = torch.tensor(sizes)
    x_BS = text(len(sizes), max(sizes))
    short, long = padded(x_BS, lengths_B, 0), padded(x_BS, lengths_B, more)
    equal(model.logits(long, lengths_B), model.logits(short, lengths_B), CLOSE)
    probability_BC = model(long, lengths_B)
    alone = [model(x_BS[row : row + 1, :size], lengths_B[row : row + 1]) for row, size in enumerate(sizes)]
    assert probability_BC.shape == (len(sizes), labels)
    equal(probability_BC, torch.cat(alone), CLOSE)
    equal(probability_BC.sum(1), torch.ones(len(sizes)), CLOSE)


@QUICK
@given(lengths, st.integers(0, 5))
def test_a_text_is_read_backwards_from_its_last_real_step(sizes: list[int], more: int) -> None:
    z_BSE = noise(len(sizes), max(sizes) + more, 2)
    turned = backwards(z_BSE, torch.tensor(sizes))
    assert turned.shape == z_BSE.shape
    for row, size in enumerate(sizes):
        equal(turned[row, :size], z_BSE[row, :size].flip(0), EXACT)


def test_reading_both_ways_sees_the_beginning_last() -> None:
    """A text's first word is far from the end for one LSTM and next to it for the other."""
    full, x_BS, words = torch.tensor([30]), text(1, 30), torch.arange(1, TOKENS)
    others = x_BS.repeat(len(words), 1)
    others[:, 0] = words

    def spread(both: bool) -> float:
        model = fresh(lambda: Classifier(TOKENS, 2, "last", setting(both_ways=both)))
        return float(model.logits(others, full.repeat(len(words))).detach().std())

    assert spread(both=True) > 10 * spread(both=False)


def test_members_are_averaged_and_each_trains_on_its_own_rows() -> None:
    x_BS, lengths_B = text(6, 4), torch.tensor([4, 3, 2, 1, 4, 2])
    three = fresh(lambda: Classifier(TOKENS, 4, "mean_max", setting(members=3)))
    logits = [member(x_BS, lengths_B) for member in three.members]
    assert not torch.allclose(logits[0], logits[1])
    equal(three.logits(x_BS, lengths_B), torch.stack(logits).mean(0), CLOSE)
    shares = torch.cat([logits[member][2 * member : 2 * member + 2] for member in range(3)])
    equal(three.train().logits(x_BS, lengths_B), shares, CLOSE)


def test_a_word_s_parts_are_folded_into_plain_rows() -> None:
    entries = ("walking", "walked", "at", "a", "!", "x" * 99)
    x_BS = torch.tensor([[2, 3, 4, 0], [5, 6, 7, 1]])
    model = fresh(lambda: Classifier(len(entries) + 2, 3, "mean_max", setting(members=2), entries))
    before = model.logits(x_BS, torch.tensor([3, 4]))
    weights = set(model.state_dict())
    folded = model.fold()
    equal(folded.logits(x_BS, torch.tensor([3, 4])), before, CLOSE)
    assert set(folded.state_dict()) != weights
    plain = fresh(lambda: Classifier(len(entries) + 2, 3, "mean_max", setting(members=2)))
    plain.load_state_dict(folded.state_dict())
    equal(plain.logits(x_BS, torch.tensor([3, 4])), before, CLOSE)


def test_words_of_one_stem_share_groups_of_letters() -> None:
    groups = character_ngrams(("walking", "walked", "river", "a", "x" * 99))
    assert groups.shape == (7, 24)
    assert not groups[:2].any(), "padding and the unknown token have none"
    walking, walked, river, single, _ = ({*row.tolist()} - {0} for row in groups[2:])
    assert len(walking) == len("<walking>") - 2 + len("<walking>") - 3
    assert len(walking & walked) == len(["<wa", "wal", "alk", "<wal", "walk"])
    assert not walking & river
    assert len(single) == 1


def test_reading_the_last_step_reads_the_padding() -> None:
    model = fresh(lambda: Classifier(TOKENS, 2, "last_padded", setting(both_ways=False)))
    lengths_B = torch.tensor([3, 2])
    short, long = (padded(text(2, 3), lengths_B, more) for more in (0, 20))
    assert (model(short, lengths_B) - model(long, lengths_B)).abs().max() > 1e-3
    full = torch.tensor([3, 3])
    last = fresh(lambda: Classifier(TOKENS, 2, "last", setting(both_ways=False)))
    equal(model(text(2, 3), full), last(text(2, 3), full), EXACT)


@pytest.mark.parametrize("rows", [1, 3])
def test_two_labels_have_one_logit_and_more_have_one_each(rows: int) -> None:
    x_BS, lengths_B = text(rows, 4), torch.full((rows,), 4)
    two = fresh(lambda: Classifier(TOKENS, 2, "last", setting()))
    logits_B = two.logits(x_BS, lengths_B)
    assert logits_B.shape == (rows,)
    equal(two(x_BS, lengths_B)[:, 1], torch.sigmoid(logits_B), CLOSE)
    three = fresh(lambda: Classifier(TOKENS, 3, "last", setting()))
    logits_BC = three.logits(x_BS, lengths_B)
    assert logits_BC.shape == (rows, 3)
    equal(three(x_BS, lengths_B), logits_BC.softmax(1), CLOSE)


def test_token_dropout_is_active_in_training_only() -> None:
    dropout, x_BS = TokenDropout(0.25), torch.full((100, 100), 7)
    equal(dropout.eval()(x_BS), x_BS, EXACT)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = dropout.train()(x_BS)
    assert set(dropped.unique().tolist()) == {1, 7}
    assert float((dropped == 1).double().mean()) == pytest.approx(0.25, abs=0.02)
    equal(TokenDropout(0.0).train()(x_BS), x_BS, EXACT)


@pytest.mark.parametrize(
    ("forecast", "y", "observed"),
    [
        ((4, 1), (4,), (4,)),
        ((4, 1), (4,), (4, 1)),
        ((2, 3, 1), (2, 3, 1), (2, 3)),
        ((2, 3, 1), (2, 3, 1), (2, 1, 1)),
        ((2, 3, 2), (2, 3, 1), (2, 3, 2)),
        ((2, 3, 1), (1, 3, 1), (1, 3, 1)),
        ((6, 1), (2, 3, 1), (2, 3, 1)),
    ],
)
def test_squared_errors_do_not_broadcast(
    forecast: tuple[int, ...], y: tuple[int, ...], observed: tuple[int, ...]
) -> None:
    ones = torch.ones(observed, dtype=torch.bool)
    with pytest.raises(ShapeError, match="must have one shape"):
        squared_error(noise(*forecast), noise(*y), ones, torch.tensor(1.0))
    batch = Batch(task="forecast", x=noise(1), y=noise(*y), observed=ones, scale=torch.tensor(1.0))
    with pytest.raises(ShapeError, match="must have one shape"):
        loss(noise(*forecast), batch)


@pytest.mark.parametrize(
    ("logits", "y", "weight"),
    [
        ((4, 1), (4,), (4,)),
        ((4,), (4, 1), (4,)),
        ((4, 1), (4, 1), (4, 1)),
        ((4,), (1,), (4,)),
        ((1,), (4,), (4,)),
        ((4,), (4,), (1,)),
        ((4,), (4,), (4, 1)),
        ((4,), (4,), ()),
        ((), (), ()),
    ],
)
def test_yes_or_no_does_not_broadcast(logits: tuple[int, ...], y: tuple[int, ...], weight: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"must (have one shape|be \(N,\))"):
        binary_cross_entropy(noise(*logits), torch.zeros(y), torch.ones(weight))


@pytest.mark.parametrize(
    ("logits", "y", "weight"),
    [
        ((4,), (4,), (4,)),
        ((4, 3), (4, 1), (4,)),
        ((4, 3), (1,), (1,)),
        ((1, 3), (4,), (4,)),
        ((3, 4), (4,), (4,)),
        ((2, 3, 4), (2, 4), (2, 4)),
        ((4, 3), (4,), (1,)),
        ((4, 3), (4,), (4, 1)),
        ((4, 3), (4,), (3,)),
        ((4, 3), (4,), ()),
    ],
)
def test_labels_do_not_broadcast(logits: tuple[int, ...], y: tuple[int, ...], weight: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"must (have one shape|be \(N,C\))"):
        cross_entropy(noise(*logits), torch.zeros(y, dtype=torch.int64), torch.ones(weight))


@pytest.mark.parametrize(
    ("task", "output", "y"),
    [
        ("classify", (4,), torch.zeros(4, dtype=torch.int64)),
        ("classify", (4, 2), torch.zeros(4)),
        ("classify", (4, 1), torch.zeros(4)),
        ("classify", (2, 3), torch.zeros(4, dtype=torch.int64)),
        ("next_token", (2, 3, TOKENS), torch.zeros(2, 4, dtype=torch.int64)),
        ("next_token", (2, 3, TOKENS), torch.zeros(2, dtype=torch.int64)),
        ("next_token", (2, 3, TOKENS), torch.zeros(3, 2, dtype=torch.int64)),
    ],
)
def test_no_task_s_loss_broadcasts(task: Task, output: tuple[int, ...], y: Tensor) -> None:
    batch = Batch(task=task, x=y, y=y)
    with pytest.raises(ShapeError):
        loss(noise(*output), batch)


@QUICK
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 7), st.data())
def test_one_entropy_for_rows_and_for_steps(rows: int, steps: int, tokens: int, data: st.DataObject) -> None:
    targets = st.integers(0, tokens - 1) | st.just(IGNORED)
    drawn = data.draw(st.lists(targets, min_size=rows * steps, max_size=rows * steps))
    logits_BSV, y_BS = noise(rows, steps, tokens), torch.tensor(drawn).view(rows, steps)
    ours = cross_entropy(logits_BSV.reshape(-1, tokens), y_BS.reshape(-1))
    wanted = functional.cross_entropy(logits_BSV.transpose(1, 2), y_BS, ignore_index=IGNORED, reduction="sum")
    equal(ours, wanted, 1e-4)
    total, counted = loss(logits_BSV, Batch(task="next_token", x=y_BS, y=y_BS))
    equal(total, ours, EXACT)
    assert int(counted) == len(drawn) - drawn.count(IGNORED)


def test_ignored_targets_count_for_nothing() -> None:
    logits, y = noise(6, 4), torch.tensor([3, IGNORED, 0, IGNORED, IGNORED, 2])
    kept = y != IGNORED
    equal(cross_entropy(logits, y), cross_entropy(logits[kept], y[kept]), CLOSE)
    equal(
        cross_entropy(logits, y, torch.arange(6.0)),
        cross_entropy(logits[kept], y[kept], torch.arange(6.0)[kept]),
        CLOSE,
    )
    assert float(cross_entropy(logits, torch.full((6,), IGNORED))) == 0
    logits.requires_grad_()
    cross_entropy(logits, y).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) > 0).tolist() == kept.tolist()


def one_by_one(logits: Tensor, y: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted cross-entropy of rows of probabilities, by its definition; of one logit it is that of yes."""
    rows = torch.stack([torch.zeros_like(logits), logits], 1) if logits.dim() == 1 else logits
    return -sum(
        weight * float(row.double().softmax(0)[int(label)].log())
        for row, label, weight in zip(rows, y, weights, strict=True)
    )


@pytest.mark.parametrize("labels", [2, 3])
def test_a_classifier_s_loss_is_its_entropy_and_weights_count(labels: int) -> None:
    said = [0, 1, 1, labels - 1, 0]
    y = torch.tensor(said, dtype=torch.float32 if labels == 2 else torch.int64)
    logits, weights = noise(5) if labels == 2 else noise(5, labels), [0.5, 2.0, 2.0, 0.0, 0.5]
    plain = Batch(task="classify", x=text(5, 2), y=y)
    total, counted = loss(logits, plain)
    assert float(total) == pytest.approx(one_by_one(logits, said, [1] * 5), rel=1e-5)
    assert float(counted) == 5
    total, counted = loss(logits, Batch(task="classify", x=text(5, 2), y=y, weight=torch.tensor(weights)))
    assert float(total) == pytest.approx(one_by_one(logits, said, weights), rel=1e-5)
    assert float(counted) == 5


@pytest.mark.parametrize("labels", [2, 3])
def test_smoothing_spreads_a_share_of_a_label_over_all(labels: int) -> None:
    said, weights = [0, 1, labels - 1], [1.0, 0.5, 2.0]
    y = torch.tensor(said, dtype=torch.float32 if labels == 2 else torch.int64)
    logits = noise(3) if labels == 2 else noise(3, labels)
    batch = Batch(task="classify", x=text(3, 2), y=y, weight=torch.tensor(weights), smoothing=0.3)
    total, counted = loss(logits, batch)
    spread = sum(one_by_one(logits, [label] * 3, weights) for label in range(labels)) / labels
    assert float(total) == pytest.approx(0.7 * one_by_one(logits, said, weights) + 0.3 * spread, rel=1e-5)
    assert float(counted) == sum(weights)


def test_weights_are_what_is_counted() -> None:
    y, logits = torch.tensor([0, 1, 2]), noise(3, 3)
    for weights in ([1.0, 1, 1], [3.0, 0, 0], [0.25, 0.25, 1.0]):
        batch = Batch(task="classify", x=text(3, 2), y=y, weight=torch.tensor(weights))
        assert float(loss(logits, batch)[1]) == sum(weights)


def test_a_forecaster_s_loss_is_in_each_series_deviations_and_of_what_happened() -> None:
    forecast = torch.tensor([[[1.0], [2.0]], [[30.0], [float("nan")]]])
    y = torch.tensor([[[0.0], [4.0]], [[10.0], [5.0]]])
    observed, scale = torch.tensor([[[True], [True]], [[True], [False]]]), torch.tensor([[[1.0]], [[10.0]]])
    total, counted = loss(forecast, Batch(task="forecast", x=y, y=y, observed=observed, scale=scale))
    assert (float(total), int(counted)) == (1 + 4 + 4, 3)


def test_a_trained_step_lowers_each_task_s_loss() -> None:
    """The networks give their losses what these take, at a batch of one too."""
    tasks: list[tuple[Classifier | NextToken, Batch]] = []
    for rows in (1, 4):
        x, full = text(rows, 5), torch.full((rows,), 5)
        two, three = torch.ones(rows), torch.full((rows,), 2)
        tasks += [
            (fresh(lambda: Classifier(TOKENS, 2, "last", setting())), Batch(task="classify", x=x, y=two, lengths=full)),
            (
                fresh(lambda: Classifier(TOKENS, 3, "mean_max", setting())),
                Batch(task="classify", x=x, y=three, lengths=full),
            ),
            (fresh(lambda: NextToken(TOKENS, setting())), Batch(task="next_token", x=x, y=x.roll(-1, 1))),
        ]
    for model, batch in tasks:
        before, _ = loss(model.outputs(batch, None)[0], batch)
        stepped = copy.deepcopy(model)
        optimiser = torch.optim.SGD(stepped.parameters(), 0.01)
        loss(stepped.outputs(batch, None)[0], batch)[0].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        assert loss(stepped.outputs(batch, None)[0], batch)[0] < before
