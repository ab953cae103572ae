"""Seed 003: sentiment of film reviews; after S. Agrawal's "Reading between the layers (LSTM Network)".

The document: a batch of 50 reviews of 200 words through Embedding(V,30), LSTM(30,512), view(-1,512), Linear(512,1), a
sigmoid and view(50,-1)[:, -1], untrained, with each shape printed.

Its mistakes: nothing is trained; the head computes 10,000 rows, of which 9,950 are thrown away; the last view is right
for a single output only, and silently wrong for more; a text shorter than 200 words is read with its padding.

--mode honest trains with this project's own classifier on the polarity of sentences, with stratified ten-fold
cross-validation; the scores are means over the folds. --folds N runs the first N folds only (honest mode only).

--mode parity reproduces the document for the first 50 sentences, padded on the right (its predecessor padded on the
left); max_abs is the difference between its views and selecting the last step.

The data is the zip of the sentence polarity dataset v1.0 (Pang and Lee, 2005), or lines `label TAB text`.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from seed_000_spam import LastStepClassifier, classify_job, pad_rows, train_and_evaluate
from seeds import Options, log_line, parse_options, print_result, read_sentences, run_script
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from model.networks.protocol import Select
from model.training.classification import ClassificationReport, Ints
from model.training.loop import TrainConfig, repeatable
from pipeline.windows.tokens import Vocabulary
from tidecast.errors import ShapeError

LABELS = ("neg", "pos")
FOLDS, BATCH, STEPS = 10, 50, 200


def view_route(out_BSH: Tensor, head: nn.Linear) -> dict[str, Tensor]:
    """The document's views, from the LSTM's output to a probability (B,), under the names it prints.

    Raises ShapeError for more than one output: the last view would silently mix outputs and steps.
    """
    if head.out_features != 1:
        raise ShapeError(f"view(B,-1)[:, -1] is the last step for one output only, not for {head.out_features}")
    fc = head(out_BSH.reshape(-1, out_BSH.shape[2]))
    sigmoid = fc.sigmoid()
    out_BS = sigmoid.view(len(out_BSH), -1)
    return {"FC layer": fc, "Sigmoid layer": sigmoid, "Output layer": out_BS, "Final": out_BS[:, -1]}


@torch.no_grad()
def parity(texts: Sequence[str], seed: int) -> tuple[LastStepClassifier, dict[str, Tensor], float]:
    """The untrained network, its activations for a batch, and the difference from selecting the last step."""
    vocabulary = msgspec.structs.replace(Vocabulary().fitted(texts), max_len=STEPS)
    encoder = vocabulary.encoder()
    with repeatable(TrainConfig(seed=seed)):
        model = LastStepClassifier(len(vocabulary), width=30, hidden=512)
        x = pad_rows([encoder.cut(text) for text in texts[:BATCH]], STEPS)
        embeds = model.encode(x)
        out_BSH, _ = model.core(embeds)
        routed = view_route(out_BSH, model.head)
        selected = model.head(Select("last")(out_BSH)).sigmoid().squeeze(1)
    activations = {
        "X": x,
        "Embedding layer weights": model.encode.weight,
        "Embedding layer": embeds,
        "LSTM layer": out_BSH,
    }
    return model, activations | routed, float((routed["Final"] - selected).abs().max())


def honest(texts: Sequence[str], y: Ints, options: Options, folds: int) -> list[ClassificationReport]:
    """Trains and evaluates this project's classifier on each of the first folds."""
    job, reports = classify_job(options, "reviews"), []
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=42).split(texts, y)
    for number, (train, test) in zip(range(1, folds + 1), splits, strict=False):
        reports.append(train_and_evaluate(texts, y, LABELS, train, test, job))
        log_line(f"fold {number} of {folds}: accuracy {reports[-1].accuracy:.4f}, MCC {reports[-1].mcc:.4f}")
    return reports


def main() -> None:
    """Runs the chosen mode."""
    folds = {"type": int, "choices": range(1, FOLDS + 1), "default": FOLDS, "help": "run the first N folds only"}
    options = parse_options(__doc__ or "", "sentences.tsv", folds=folds)
    texts, labels = read_sentences(options.data)
    with print_result(options) as result:
        if options.mode == "parity":
            model, activations, result["max_abs"] = parity(texts, options.seed)
            for name, tensor in activations.items():
                log_line(f"{name} shape: {list(tensor.shape)}")
            log_line(f"{model.parameters_without_embedding():,} parameters outside the embedding")
        else:
            reports = honest(
                texts, np.array([LABELS.index(label) for label in labels], np.int64), options, options.extra["folds"]
            )
            result["accuracy"] = float(np.mean([report.accuracy for report in reports]))
            result["mcc"] = float(np.mean([report.mcc for report in reports]))


if __name__ == "__main__":
    run_script(main)
