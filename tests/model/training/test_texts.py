"""Texts: cut into parts, learnt, judged, and the same in onnxruntime as in torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import examples
from safetensors.torch import load_file
from sharing import Shared
from torch import Tensor, nn

from model.artifacts.export import save, session
from model.artifacts.versions import MODEL_FILE
from model.card import AnyCard, ClassifierCard, NextTokenCard, read_card
from model.networks.text import Classifier, NextToken, build_classifier, build_next_token
from model.training.classification import (
    ClassifyConfig,
    Ints,
    Parts,
    PreparedTexts,
    classifier_card,
    evaluate,
    fit_classifier,
    partition,
    probabilities,
)
from model.training.loop import FittedModel
from model.training.next_token import NextTokenConfig, PreparedTokens, fit_next_token, next_token_card

Floats = npt.NDArray[np.float32]
Words = dict[str, Any]

WORDS: Words = {"tokeniser": "word"}
COMMON = 20
"""Tokens that say nothing about a label; each label's own come after them."""
TOKENS = COMMON + 6
QUICK = ClassifyConfig(hidden=8, embedding=8, epochs=3, batch=16, seed=5, learning_rate=0.01)
EAGER = ClassifyConfig(
    hidden=24,
    embedding=16,
    epochs=12,
    batch=32,
    learning_rate=0.02,
    dropout=0.1,
    embedding_dropout=0.0,
    token_dropout=0.0,
    smoothing=0.0,
)
"""Learns fast what is easy."""
STREAMS = NextTokenConfig(hidden=8, embedding=8, epochs=2, batch=4, steps=10, seed=5, dropout=0.0)


@dataclass(frozen=True)
class Corpus:
    """Texts as training takes them, with their labels; by hand."""

    x: Ints
    lengths: Ints
    y: Ints

    @property
    def rows(self) -> Parts:
        return partition(self.y, None, 0.2, 0)


def corpus(count: int, shares: Sequence[float] = (0.5, 0.5), seed: int = 0) -> Corpus:
    """Texts of 3 to 12 tokens at random, but for one, somewhere, that decides the label."""
    random = np.random.default_rng(seed)
    y = random.choice(len(shares), count, p=shares)
    lengths = random.integers(3, 13, count)
    x = random.integers(2, COMMON, (count, 12))
    x[np.arange(count), random.integers(0, lengths)] = COMMON + y
    x[np.arange(12) >= lengths[:, None]] = 0
    return Corpus(x, lengths, y)


def names(count: int) -> list[str]:
    return [f"label-{number}" for number in range(count)]


def prepared(
    texts: Corpus, config: ClassifyConfig = QUICK, labels: int = 2, parts: Parts | None = None
) -> PreparedTexts:
    card = classifier_card(names(labels), WORDS, TOKENS, config, "texts")
    return PreparedTexts(texts, texts.y, parts or texts.rows, card, config)


def train(texts: Corpus, config: ClassifyConfig = QUICK, labels: int = 2) -> FittedModel[Classifier, ClassifierCard]:
    return fit_classifier(prepared(texts, config, labels))


def weights(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def few() -> Corpus:
    return corpus(150)


@settings(max_examples=examples(40))
@given(st.lists(st.integers(10, 80), min_size=2, max_size=5), st.sampled_from([0.1, 0.2, 0.3]), st.integers(0, 99))
def test_partition_is_stratified_by_label(counts: list[int], share: float, seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = partition(y, None, share, seed)
    assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(len(y)))
    for part in (parts.train, parts.validation, parts.test):
        assert (np.diff(part) > 0).all(), "rows keep their order"
    for part in (parts.validation, parts.test):
        assert np.abs(np.bincount(y[part], minlength=len(counts)) - share * np.array(counts)).max() < 2


@settings(max_examples=examples(40))
@given(st.lists(st.integers(0, 30), min_size=60, max_size=200), st.integers(0, 99))
def test_partition_keeps_groups_together(numbers: list[int], seed: int) -> None:
    numbers += range(31)
    groups = [f"group-{number}" for number in numbers]
    parts = partition(np.arange(len(groups)) % 2, groups, 0.1, seed)
    within = [{groups[row] for row in part} for part in (parts.train, parts.validation, parts.test)]
    assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(len(groups)))
    assert all(within)
    assert len(within[2]) == 4
    assert len(within[1]) in (3, 4)
    assert sum(map(len, within)) == 31


def test_partition_is_deterministic_for_a_seed() -> None:
    y = np.arange(100) % 2
    for groups in (None, [f"group-{row // 3}" for row in range(100)]):
        first, again, other = (partition(y, groups, 0.1, seed) for seed in (3, 3, 4))
        assert [part.tolist() for part in (first.train, first.validation, first.test)] == [
            part.tolist() for part in (again.train, again.validation, again.test)
        ]
        assert first.test.tolist() != other.test.tolist()


def test_partition_needs_three_texts_per_label() -> None:
    parts = partition(np.array([0, 1, 0, 1, 0, 1]), None, 0.1, 0)
    for part in (parts.train, parts.validation, parts.test):
        assert [row % 2 for row in part] in ([0, 1], [1, 0])
    with pytest.raises(ValueError, match=r"^labels: each needs at least 3 texts, and one has 2$"):
        partition(np.array([0, 1, 0, 1, 0]), None, 0.1, 0)


@pytest.mark.parametrize("groups", [1, 2])
def test_partition_with_too_few_groups_is_an_error(groups: int) -> None:
    with pytest.raises(ValueError, match="group"):
        partition(np.arange(40) % 2, [str(row % groups) for row in range(40)], 0.1, 0)


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (2, {}),
        (3, {"embedding": 0, "both_ways": False}),
        (2, {"select": "last", "members": 2, "balance": True}),
        (3, {"select": "last", "both_ways": False, "layers": 2}),
    ],
)
def test_classifier_learns_a_decisive_word(labels: int, more: dict[str, Any]) -> None:
    texts = corpus(600, [1 / labels] * labels)
    config = replace(EAGER, **more)
    fitted = train(texts, config, labels)
    report = evaluate(probabilities(fitted.model, texts, texts.rows.test), texts.y[texts.rows.test])
    assert report.accuracy > 0.95
    assert report.majority < 0.6
    assert fitted.card.labels == tuple(names(labels))
    assert fitted.card.metrics["validation_loss"] < 0.3


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_metrics_are_those_of_the_weights_kept(keep: Any, labels: int) -> None:
    texts = corpus(200, [1 / labels] * labels)
    fitted = train(texts, replace(QUICK, learning_rate=0.2, epochs=8, patience=2, keep=keep), labels)
    best = min(fitted.history, key=lambda epoch: epoch.validation_loss)
    kept = best if keep == "best" else fitted.history[7]
    assert [epoch.number for epoch in fitted.history] == list(range(1, len(fitted.history) + 1))
    assert len(fitted.history) == 8 if keep == "last" else len(fitted.history) - best.number <= 2
    rows = texts.rows.validation
    given = probabilities(fitted.model, texts, rows)[np.arange(len(rows)), texts.y[rows]]
    assert -np.log(given).mean() == pytest.approx(kept.validation_loss, rel=1e-4)
    assert fitted.card.metrics == {
        "validation_loss": kept.validation_loss,
        "train_loss": kept.train_loss,
        "best_epoch": kept.number,
    }


def test_the_same_seed_gives_the_same_weights(few: Corpus) -> None:
    state = torch.get_rng_state()
    first = train(few, replace(QUICK, layers=2))
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert weights(train(few, replace(QUICK, layers=2)).model) == weights(first.model)
    assert weights(train(few, replace(QUICK, layers=2, seed=6)).model) != weights(first.model)


def test_only_training_texts_affect_the_weights(few: Corpus) -> None:
    config = replace(QUICK, epochs=1)
    first = weights(train(few, config).model)
    x, y, parts = few.x.copy(), few.y.copy(), few.rows
    others = np.concatenate([parts.validation, parts.test])
    x[others] = np.where(x[others] > 0, 3, 0)
    y[others] = 1 - y[others]
    changed = Corpus(x, few.lengths, y)
    again = fit_classifier(prepared(changed, config, parts=parts))
    assert weights(again.model) == first
    x[parts.train[0]] = np.where(x[parts.train[0]] > 0, 3, 0)
    again = fit_classifier(prepared(changed, config, parts=parts))
    assert weights(again.model) != first


@pytest.mark.parametrize("labels", [2, 3])
def test_balance_weights_labels_equally(labels: int) -> None:
    config, balanced = replace(QUICK, epochs=1), replace(QUICK, epochs=1, balance=True)
    rare = corpus(120, [0.1, *[0.9 / (labels - 1)] * (labels - 1)])
    assert weights(train(rare, balanced, labels).model) != weights(train(rare, config, labels).model)
    even = corpus(120, [1 / labels] * labels)
    even = replace(even, y=np.arange(120) % labels)
    assert weights(train(even, balanced, labels).model) == weights(train(even, config, labels).model)


def test_balance_improves_a_rare_label() -> None:
    """Nothing tells the labels apart: the frequent one is likelier, unless each counts the same."""
    texts = replace(corpus(300), y=(np.arange(300) % 10 == 0).astype(np.int64))
    config = ClassifyConfig(hidden=4, embedding=4, epochs=4, batch=32, learning_rate=0.02)
    plain, balanced = (
        probabilities(train(texts, replace(config, balance=balance)).model, texts, np.arange(300))[:, 1].mean()
        for balance in (False, True)
    )
    assert plain < 0.25
    assert 0.3 < balanced < 0.7


@pytest.mark.parametrize(("count", "batch"), [(20, 1), (28, 5)])
def test_a_batch_of_one_trains(count: int, batch: int) -> None:
    texts = corpus(count)
    assert len(texts.rows.train) % batch in (0, 1)
    fitted = train(texts, replace(QUICK, epochs=1, batch=batch, layers=2))
    assert np.isfinite(fitted.history[0].train_loss)
    assert probabilities(fitted.model, texts, np.array([3])).shape == (1, 2)


def test_progress_is_reported_at_every_step(few: Corpus) -> None:
    seen: list[tuple[int, int, int]] = []
    fit_classifier(prepared(few), lambda done, total, history: seen.append((done, total, len(history))))
    steps = -(-len(few.rows.train) // QUICK.batch)
    assert seen == [(done, 3 * steps, done // steps) for done in range(1, 3 * steps + 1)]


def test_probabilities_are_independent_of_other_rows() -> None:
    texts = corpus(700)
    fitted = train(corpus(150))
    rows = np.random.default_rng(0).permutation(700)
    whole = probabilities(fitted.model, texts, rows)
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-6)
    for at in (0, 255, 256, 699):
        np.testing.assert_allclose(probabilities(fitted.model, texts, rows[at : at + 1])[0], whole[at], atol=1e-6)


def certain(said: Sequence[int], labels: int) -> Floats:
    """Probabilities whose likeliest labels are these."""
    return np.where(np.arange(labels) == np.array(said)[:, None], 0.6, 0.4 / (labels - 1)).astype(np.float32)


def test_evaluate_two_labels_matches_values_computed_by_hand() -> None:
    report = evaluate(certain([0, 0, 1, 1, 0], 2), np.array([0, 0, 0, 1, 1]))
    assert (report.accuracy, report.majority, report.f1) == (3 / 5, 3 / 5, 1 / 2)
    assert report.mcc == pytest.approx(1 / 6)
    assert report.confusion.tolist() == [[2, 1], [1, 1]]


def test_evaluate_three_labels_matches_values_computed_by_hand() -> None:
    report = evaluate(certain([0, 1, 1, 1, 2, 0], 3), np.array([0, 0, 1, 1, 2, 2]))
    assert report.accuracy == pytest.approx(4 / 6)
    assert report.majority == pytest.approx(2 / 6)
    assert report.f1 == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)
    assert report.mcc == pytest.approx(12 / np.sqrt(22 * 24))
    assert report.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


def test_confusion_matrix_includes_labels_never_predicted_or_never_true() -> None:
    report = evaluate(certain([0, 0, 0], 2), np.array([0, 1, 0]))
    assert (report.mcc, report.f1, report.confusion.tolist()) == (0, 0, [[2, 0], [1, 0]])
    report = evaluate(certain([0, 1, 1], 3), np.array([0, 1, 0]))
    assert report.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert report.f1 == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("labels", [2, 3])
def test_evaluate_of_a_single_label_gives_no_warning(labels: int) -> None:
    report = evaluate(certain([0, 0], labels), np.array([0, 0]))
    assert (report.accuracy, report.majority, report.mcc) == (1, 1, 0)
    assert report.confusion[0, 0] == 2
    assert report.confusion.shape == (labels, labels)


def follow(
    train: Ints, validation: Ints, config: NextTokenConfig = STREAMS, tokens: int = 9
) -> FittedModel[NextToken, NextTokenCard]:
    card = next_token_card({"tokeniser": "char"}, tokens, config, "follow")
    return fit_next_token(PreparedTokens(train, validation, card, config))


def cycle(count: int, period: int = 5) -> Ints:
    return np.arange(count, dtype=np.int64) % period + 2


@torch.no_grad()
def nats(model: NextToken, text: Ints, streams: int) -> float:
    """The mean of -log p of a text's tokens but the first, each stream of it read in one pass."""
    length = -(-(len(text) - 1) // streams)
    lost, counted = 0.0, 0
    for start in range(0, len(text) - 1, length):
        x, y = text[start : start + length], text[start + 1 : start + length + 1]
        logits, _, _ = model(torch.from_numpy(x[None, : len(y)]), *model.start(1))
        lost -= float(logits[0].double().log_softmax(1)[torch.arange(len(y)), torch.from_numpy(y)].sum())
        counted += len(y)
    assert counted == len(text) - 1
    return lost / counted


def test_next_token_model_learns_a_repeating_text() -> None:
    config = NextTokenConfig(hidden=16, embedding=8, epochs=10, batch=4, steps=20, learning_rate=0.02, dropout=0.0)
    fitted = follow(cycle(2000), cycle(300), config)
    assert fitted.card.metrics["validation_nats"] < 0.05
    x = torch.from_numpy(cycle(40)[None])
    logits, _, _ = fitted.model(x, *fitted.model.start(1))
    assert torch.equal(logits.argmax(2)[:, 1:-1], x[:, 2:]), "after each token comes the next one's"


@pytest.mark.parametrize("length", [41, 43, 97, 200])
def test_next_token_targets_are_all_tokens_but_the_first(length: int) -> None:
    text = np.random.default_rng(0).integers(2, 9, length)
    fitted = follow(cycle(300), text)
    best = min(fitted.history, key=lambda epoch: epoch.validation_loss)
    assert nats(fitted.model, text, STREAMS.batch) == pytest.approx(best.validation_loss, rel=1e-5)
    assert fitted.card.metrics == {
        "validation_nats": best.validation_loss,
        "train_nats": best.train_loss,
        "best_epoch": best.number,
    }


def test_next_token_targets_are_the_inputs_shifted_by_one() -> None:
    """What the first step of training loses is what the untrained network loses on the text's streams."""
    text = np.random.default_rng(0).integers(2, 9, 150)
    config = replace(STREAMS, epochs=1, steps=1000, learning_rate=1e-12)
    fitted = follow(text, text, config)
    assert fitted.history[0].train_loss == pytest.approx(nats(fitted.model, text, config.batch), rel=1e-5)
    assert fitted.history[0].validation_loss == pytest.approx(fitted.history[0].train_loss, rel=1e-5)


def test_next_token_state_is_carried_between_batches() -> None:
    """At the beginning of a batch only the state can tell whether the 2 there is the first or the second one."""
    text = np.tile([2, 2, 3], 400)
    config = NextTokenConfig(hidden=16, embedding=8, epochs=8, batch=2, steps=4, learning_rate=0.02, dropout=0.0)
    assert follow(text, text[:100], config, 4).card.metrics["validation_nats"] < 0.05


def test_next_token_training_is_deterministic_and_ignores_validation_text() -> None:
    config = replace(STREAMS, epochs=1)
    first = weights(follow(cycle(300), cycle(80), config).model)
    assert weights(follow(cycle(300), cycle(80), config).model) == first
    assert weights(follow(cycle(300), cycle(80, period=3), config).model) == first
    assert weights(follow(cycle(300), cycle(80), replace(config, seed=6)).model) != first


@pytest.mark.parametrize("part", ["training", "validation"])
def test_next_token_text_shorter_than_its_streams_is_an_error(part: str) -> None:
    short, long = cycle(STREAMS.batch), cycle(STREAMS.batch + 1)
    assert np.isfinite(follow(long, long).card.metrics["validation_nats"])
    with pytest.raises(ValueError, match=rf"^batch: the {part} text of 4 tokens is too short for 4 streams$"):
        follow(short if part == "training" else long, short if part == "validation" else long)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("embedding", -1),
        ("token_dropout", 1.0),
        ("token_dropout", -0.1),
        ("token_dropout", float("nan")),
        ("embedding_dropout", 1.0),
        ("smoothing", 1.0),
        ("members", 0),
        ("hidden", 0),
        ("layers", 0),
        ("epochs", 0),
        ("batch", 0),
        ("dropout", 1.0),
        ("learning_rate", float("nan")),
    ],
)
def test_classifier_setting_error_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        ClassifyConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"), [("embedding", -1), ("steps", 0), ("hidden", 0), ("batch", 0), ("epochs", 0), ("dropout", 1.0)]
)
def test_next_token_setting_error_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        NextTokenConfig(**{field: value})  # type: ignore[arg-type]


def test_unknown_selection_error_names_it(few: Corpus) -> None:
    with pytest.raises(ValueError, match=r"^select: 'first' is none of"):
        train(few, replace(QUICK, select="first"))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Exported:
    """A network with its file."""

    model: Classifier | NextToken
    card: AnyCard
    path: Path

    @cached_property
    def run(self) -> ort.InferenceSession:
        return session(self.path)


def texts(rows: int, steps: int, seed: int = 0) -> dict[str, Ints]:
    """Made-up texts, the first of them as long as all may be."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, steps + 1, rows)
    lengths[0] = steps
    x = np.where(np.arange(steps) < lengths[:, None], random.integers(1, TOKENS, (rows, steps)), 0)
    return {"x": x, "lengths": lengths}


def wide(model: nn.Module) -> None:
    """Weights so great that texts differ, and no bias that makes them alike."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.7)
            else:
                weight.zero_()


CLASSIFIERS: list[tuple[int, dict[str, Any]]] = [
    (2, {"select": "last", "both_ways": False}),
    (3, {"select": "last", "both_ways": True, "embedding": 0}),
    (2, {"select": "mean_max", "both_ways": False, "members": 2}),
    (3, {"select": "mean_max", "both_ways": False}),
]
IN_SHORT = CLASSIFIERS[2:3]
"""Two members, as none of the others has."""


@pytest.fixture(
    scope="session",
    params=[pytest.param(given, marks=[pytest.mark.slow] * (given not in IN_SHORT)) for given in CLASSIFIERS],
    ids=lambda given: f"{given[1]['select']}-{given[0]}",
)
def classifier(request: pytest.FixtureRequest, shared: Shared) -> Exported:
    """One for each selection and number of labels; one of them takes its tokens one-hot."""
    labels, more = request.param
    config = ClassifyConfig(hidden=16, **{"embedding": 8} | more)
    card = classifier_card(names(labels), WORDS, TOKENS, config, "classifier")
    model = build_classifier(card).eval()
    wide(model)
    name = f"classifier-{more['select']}-{labels}"
    made = shared.made(name, lambda folder: save(model, card, folder, texts(64, 12)))
    return Exported(model, card, made / MODEL_FILE)


@pytest.fixture(scope="session")
def continuer(shared: Shared) -> Exported:
    config = NextTokenConfig(hidden=16, embedding=8, layers=2)
    card = next_token_card({"tokeniser": "char"}, TOKENS, config, "continuer")
    model = build_next_token(card).eval()
    wide(model)
    given = begun(64, 12, 16)
    made = shared.made("continuer", lambda folder: save(model, card, folder, given))
    return Exported(model, card, made / MODEL_FILE)


def begun(rows: int, steps: int, hidden: int) -> dict[str, npt.NDArray[Any]]:
    """Tokens and a state that something came before."""
    random = np.random.default_rng(rows + steps)
    h, c = (random.normal(size=(2, rows, hidden)).astype(np.float32) for _ in "hc")
    return {"x": random.integers(0, TOKENS, (rows, steps)), "h": np.tanh(h), "c": c}


@torch.no_grad()
def difference(exported: Exported, given: Mapping[str, npt.NDArray[Any]]) -> float:
    """Between torch and onnxruntime, relative to each output's greatest value."""
    expected = exported.model(*(torch.from_numpy(given[name]) for name in exported.card.inputs))
    wanted: tuple[Tensor, ...] = expected if isinstance(expected, tuple) else (expected,)
    found = exported.run.run(None, dict(given))
    assert [output.shape for output in found] == [tuple(output.shape) for output in wanted]
    return max(
        float(np.abs(theirs - ours.numpy()).max() / ours.abs().max())
        for theirs, ours in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("steps", [1, 2, 7, 60])
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_classifier_export_matches_torch(classifier: Exported, rows: int, steps: int) -> None:
    assert difference(classifier, texts(rows, steps)) < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 7, 60])
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_next_token_export_matches_torch(continuer: Exported, rows: int, steps: int) -> None:
    assert difference(continuer, begun(rows, steps, 16)) < 1e-5


def test_text_exports_have_dynamic_batch_and_length(classifier: Exported, continuer: Exported) -> None:
    """However many were exported before it in this process."""
    labels = len(classifier.card.labels) if isinstance(classifier.card, ClassifierCard) else 0
    shapes = {node.name: node.shape for node in (*classifier.run.get_inputs(), *classifier.run.get_outputs())}
    assert shapes == {"x": ["batch", "steps"], "lengths": ["batch"], "probability": ["batch", labels]}
    shapes = {node.name: node.shape for node in (*continuer.run.get_inputs(), *continuer.run.get_outputs())}
    state = [2, "batch", 16]
    assert shapes == {
        "x": ["batch", "steps"],
        "h": state,
        "c": state,
        "logits": ["batch", "steps", TOKENS],
        "h_out": state,
        "c_out": state,
    }


def test_text_networks_are_rebuilt_from_card_and_weights(classifier: Exported, continuer: Exported) -> None:
    for exported in (classifier, continuer):
        folder = exported.path.parent
        card = read_card((folder / "card.json").read_text())
        assert card == exported.card
        assert card == read_card(exported.run.get_modelmeta().custom_metadata_map["tidecast"])
        if isinstance(card, ClassifierCard):
            again: nn.Module = build_classifier(card)
        else:
            assert isinstance(card, NextTokenCard)
            again = build_next_token(card)
        again.load_state_dict(load_file(folder / "weights.safetensors"))
        kept = load_file(folder / "example.safetensors")
        given = [kept[name] for name in card.inputs]
        ours, theirs = (model.eval()(*given) for model in (again, exported.model))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def batches(given: Mapping[str, Ints], size: int) -> Iterator[tuple[slice, dict[str, Ints]]]:
    """Texts so many at a time, padded to the longest of them."""
    for start in range(0, len(given["x"]) - size + 1, size):
        rows = slice(start, start + size)
        yield rows, {"x": given["x"][rows, : given["lengths"][rows].max()], "lengths": given["lengths"][rows]}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_exported_label_is_independent_of_the_batch(classifier: Exported, size: int) -> None:
    given = texts(256, 60)
    (whole,) = classifier.run.run(None, given)
    assert len(set(whole.argmax(1))) > 1, "not all say the same"
    for rows, part in batches(given, size):
        (found,) = classifier.run.run(None, part)
        np.testing.assert_allclose(found, whole[rows], rtol=0, atol=1e-6)
        assert found.argmax(1).tolist() == whole[rows].argmax(1).tolist()


@pytest.mark.parametrize("size", [4, 5, 7, 17, 64, 255])
def test_exported_probability_is_bitwise_independent_of_batch_and_padding(classifier: Exported, size: int) -> None:
    given = texts(256, 60)
    (whole,) = classifier.run.run(None, given)
    for rows, part in batches(given, size):
        (found,) = classifier.run.run(None, part)
        assert found.tobytes() == whole[rows].tobytes()
