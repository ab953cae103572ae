"""Seed 000: spam detection in text messages, by words; after Y. Paneliya's "Decoding LSTM using PyTorch".

The document: a vocabulary of all messages; the first five words of each, padded with 0; one batch of four through
Embedding(V,10), two layers of LSTM(10,3) and Linear(3,1), with each shape printed.

Its mistakes: the training loop breaks after one batch and nothing is evaluated; the vocabulary includes the words of
the test set, and an unknown word is an error; number 0 is both the most frequent word and the padding; nearly every
message is longer than five words; the output is read at the last step, even if that is padding.

--mode honest trains with this project's own classifier: a vocabulary of the training messages only, whole messages, and
no padding in the output. The test set is the document's, the last fifth of the file, evaluated once. --words N keeps
the first N words of a message (honest mode only).

--mode parity reproduces the document, except for its tokenizer: nltk's needs a download, so words are split by this
project's rule; no shape depends on it. An epoch is one batch, as the loop breaks; the default is one. Its accuracy on
the test set, which the document does not report, is about that of a constant prediction.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from seeds import Options, log_line, parse_options, print_result, read_sms, run_script
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from deploy.training.registration import training_progress
from deploy.training.texts import ClassifyJob, fitted_vocabulary, format_report
from model.networks.protocol import Core, Head, Select
from model.training.classification import (
    ClassificationReport,
    ClassifyConfig,
    Ints,
    Parts,
    PreparedTexts,
    classifier_card,
    evaluate,
    fit_classifier,
    probabilities,
)
from model.training.loop import OnStep, TrainConfig, repeatable
from pipeline.windows.tokens import Vocabulary

LABELS = ("ham", "spam")
BATCH, STEPS = 4, 5


class LastStepClassifier(nn.Module):
    """The network of three of the documents; the head reads the last step, even if that is padding."""

    def __init__(self, tokens: int, width: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.encode = nn.Embedding(tokens, width)
        self.core = Core(width, hidden, layers, dropout)
        self.select = Select("last_padded")
        self.dropout = nn.Dropout(dropout)
        self.head = Head(hidden, 1)

    def activations(self, x_BS: Tensor) -> dict[str, Tensor]:
        """The output of every layer, under the names that document 000 prints; the last is a probability (B,)."""
        embeds = self.encode(x_BS)
        out_BSH, (h, c) = self.core(embeds)
        last = self.select(out_BSH)
        probability = self.head(self.dropout(last)).sigmoid().squeeze(1)
        return {"X": x_BS, "embed": embeds, "lstm_out": out_BSH, "h": h, "c": c, "last": last, "out": probability}

    def forward(self, x_BS: Tensor) -> Tensor:
        """Tokens (B,S) int64 -> probabilities (B,)."""
        return self.activations(x_BS)["out"]

    def parameters_without_embedding(self) -> int:
        """The number of parameters outside the embedding."""
        return sum(weight.numel() for part in (self.core, self.head) for weight in part.parameters())

    def train_step(self, optimiser: torch.optim.Optimizer, x_BS: Tensor, y_B: Tensor) -> Tensor:
        """One optimizer step; returns the mean loss of the batch before it, in nats."""
        optimiser.zero_grad()
        loss = binary_cross_entropy(self(x_BS), y_B)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def accuracy(self, x_BS: Tensor, y_B: Tensor) -> float:
        """The share of rows classified correctly, at a threshold of 0.5."""
        return float(((self.eval()(x_BS) > 0.5) == (y_B > 0.5)).float().mean())


def pad_rows(rows: Sequence[Sequence[int]], steps: int) -> Tensor:
    """Rows truncated to `steps`, or padded with 0 on the right: (N,steps)."""
    return torch.tensor([[*row[:steps], *[0] * (steps - len(row))] for row in rows])


def encode_words(texts: Sequence[str]) -> tuple[Tensor, int]:
    """The document's tokens (N,5), numbered by frequency from 0, and the size of the vocabulary."""
    vocabulary = Vocabulary(lower=False, digits=False).fitted(texts)
    numbers = {token: number for number, token in enumerate(vocabulary.entries)}
    return pad_rows([[numbers[token] for token in vocabulary.split(text)] for text in texts], STEPS), len(numbers)


def train_size(texts: Sequence[str]) -> int:
    """How many texts, from the beginning of the file, are the training set."""
    return int(len(texts) * 0.8)


def parity(
    texts: Sequence[str], y: Ints, seed: int, batches: int
) -> tuple[LastStepClassifier, dict[str, Tensor], float]:
    """The document's network after so many batches, its activations for the first texts, and its test accuracy."""
    (x, tokens), labels, cut = encode_words(texts), torch.from_numpy(y).float(), train_size(texts)
    with repeatable(TrainConfig(seed=seed)):
        model = LastStepClassifier(tokens, width=10, hidden=3, layers=2, dropout=0.3)
        optimiser = torch.optim.Adam(model.parameters())
        for rows in (torch.randperm(cut)[:BATCH] for _ in range(batches)):
            model.train_step(optimiser, x[rows], labels[rows])
        activations = model.activations(x[:BATCH])
        return model, activations, model.accuracy(x[cut:], labels[cut:])


def honest(texts: Sequence[str], y: Ints, job: ClassifyJob) -> ClassificationReport:
    """Trains this project's classifier and evaluates it on the last fifth."""
    cut = train_size(texts)
    train, test = np.arange(cut), np.arange(cut, len(texts))
    seen = set(texts[:cut])
    duplicates = sum(text in seen for text in texts[cut:])
    log_line(f"{duplicates} of the {len(test)} test messages are also in the training set")
    with training_progress(lambda epoch: f"training loss {epoch.train_loss:.3f}") as on_step:
        return train_and_evaluate(texts, y, LABELS, train, test, job, on_step)


def train_and_evaluate(
    texts: Sequence[str],
    y: Ints,
    labels: Sequence[str],
    train: Ints,
    test: Ints,
    job: ClassifyJob,
    on_step: OnStep | None = None,
) -> ClassificationReport:
    """Fits vocabulary and classifier on the training rows, with fixed hyperparameters; evaluates the test rows."""
    vocabulary = fitted_vocabulary(job, [texts[row] for row in train])
    data, settings = vocabulary.encoder().batch(texts), msgspec.to_builtins(vocabulary)
    card = classifier_card(labels, settings, len(vocabulary), job.config, job.name)
    parts = Parts(train, np.empty(0, np.int64), test)
    fitted = fit_classifier(PreparedTexts(data, y, parts, card, job.config), on_step)
    return evaluate(probabilities(fitted.model, data, test), y[test])


def classify_job(options: Options, name: str, max_len: int | None = None) -> ClassifyJob:
    """The project's default settings, with the seed, epochs and length of the command line."""
    config = ClassifyConfig(seed=options.seed)
    config = config if options.epochs is None else replace(config, epochs=options.epochs)
    return ClassifyJob(name=name, max_len=max_len, config=config)


def main() -> None:
    """Runs the chosen mode."""
    options = parse_options(
        __doc__ or "", "sms.tsv", words={"type": int, "metavar": "N", "help": "keep the first N words"}
    )
    texts, labels = read_sms(options.data)
    y = np.array([LABELS.index(label) for label in labels], np.int64)
    with print_result(options) as result:
        if options.mode == "parity":
            model, activations, result["accuracy"] = parity(texts, y, options.seed, options.epochs or 1)
            log_line(f"Batch size: {len(activations['X'])}")
            for name, tensor in activations.items():
                log_line(f"{name} shape: {list(tensor.shape)}")
            same = torch.equal(activations["last"], activations["h"][-1])
            log_line(
                f"last step == h_n[-1]: {same}; {model.parameters_without_embedding()} parameters outside the embedding"
            )
        else:
            report = honest(texts, y, classify_job(options, "spam", options.extra["words"]))
            log_line(format_report(report))
            result.update(accuracy=report.accuracy, mcc=report.mcc)


if __name__ == "__main__":
    run_script(main)
