"""Seed 003: sentiment of film reviews; after S. Agrawal's "Reading between the layers (LSTM Network)".

What it did: a batch of 50 reviews of 200 words through Embedding(V,30), LSTM(30,512), view(-1,512), Linear(512,1), a
sigmoid and view(50,-1)[:, -1], untrained, each shape printed on the way.

What is wrong: nothing is learnt; the head works on 10,000 rows, of which 9,950 are thrown away; the last view is right
for one output only, and says nothing where there are more; a text shorter than 200 words is read with its padding.

honest mends: this project's own path on the sentences' polarity, by stratified ten-fold cross-validation; the scores
are the means of the folds. --folds N takes the first N of them, in this mode only.

parity is the document's way for the first 50 sentences, padded on the right (its predecessor padded on the left), and
max_abs how far its views are from selecting the last step.

The data is the zip of the sentence polarity dataset v1.0 (Pang and Lee, 2005), or lines of label, tab and text.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from seed_000_spam import LastStep, filled, job_for, judged
from seeds import Options, finished, options, run, say, sentences
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
    """The document's way from the LSTM's output to a probability (B,), under the names it prints.

    Raises ShapeError for more outputs than one: its last view would mix them with the steps, without a word.
    """
    if head.out_features != 1:
        raise ShapeError(f"view(B,-1)[:, -1] is the last step for one output only, not for {head.out_features}")
    fc = head(out_BSH.reshape(-1, out_BSH.shape[2]))
    sigmoid = fc.sigmoid()
    out_BS = sigmoid.view(len(out_BSH), -1)
    return {"FC layer": fc, "Sigmoid layer": sigmoid, "Output layer": out_BS, "Final": out_BS[:, -1]}


@torch.no_grad()
def parity(texts: Sequence[str], seed: int) -> tuple[LastStep, dict[str, Tensor], float]:
    """The untrained network, what a batch becomes in it, and the greatest difference to the last step selected."""
    vocabulary = msgspec.structs.replace(Vocabulary().fitted(texts), max_len=STEPS)
    encoder = vocabulary.encoder()
    with repeatable(TrainConfig(seed=seed)):
        model = LastStep(len(vocabulary), width=30, hidden=512)
        x = filled([encoder.cut(text) for text in texts[:BATCH]], STEPS)
        embeds = model.encode(x)
        out_BSH, _ = model.core(embeds)
        routed = view_route(out_BSH, model.head)
        selected = model.head(Select("last")(out_BSH)).sigmoid().squeeze(1)
    seen = {"X": x, "Embedding layer weights": model.encode.weight, "Embedding layer": embeds, "LSTM layer": out_BSH}
    return model, seen | routed, float((routed["Final"] - selected).abs().max())


def honest(texts: Sequence[str], y: Ints, asked: Options, folds: int) -> list[ClassificationReport]:
    """How the project's own path does on each of the first folds."""
    job, reports = job_for(asked, "reviews"), []
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=42).split(texts, y)
    for number, (train, test) in zip(range(1, folds + 1), splits, strict=False):
        reports.append(judged(texts, y, LABELS, train, test, job))
        say(f"fold {number} of {folds}: accuracy {reports[-1].accuracy:.4f}, MCC {reports[-1].mcc:.4f}")
    return reports


def main() -> None:
    """What was asked for."""
    folds = {"type": int, "choices": range(1, FOLDS + 1), "default": FOLDS, "help": "take the first so many"}
    asked = options(__doc__ or "", "sentences.tsv", folds=folds)
    texts, labels = sentences(asked.data)
    with finished(asked) as result:
        if asked.mode == "parity":
            model, seen, result["max_abs"] = parity(texts, asked.seed)
            for name, tensor in seen.items():
                say(f"{name} shape: {list(tensor.shape)}")
            say(f"{model.beyond_embedding():,} parameters beyond the embedding")
        else:
            reports = honest(
                texts, np.array([LABELS.index(label) for label in labels], np.int64), asked, asked.own["folds"]
            )
            result["accuracy"] = float(np.mean([report.accuracy for report in reports]))
            result["mcc"] = float(np.mean([report.mcc for report in reports]))


if __name__ == "__main__":
    run(main)
