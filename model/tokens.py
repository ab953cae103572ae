"""The networks of texts: tokens (B,S) int64 through encode, core, select and head. Shapes: model/shapes.py."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.shapes import Batch, Core, Head, Select, Selection, State
from model.spec import ClassifierCard, NextTokenCard, Setting

UNKNOWN = 1


class OneHot(nn.Module):
    """Tokens as rows of the identity, (B,S) -> (B,S,V)."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x_BS: Tensor) -> Tensor:
        """(B,S) -> (B,S,V) float32."""
        return functional.one_hot(x_BS, self.tokens).float()


class Forget(nn.Module):
    """In training, makes each token the unknown one with a probability: so that a text is not known by one word."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x_BS: Tensor) -> Tensor:
        """(B,S) -> (B,S)."""
        if not self.training or not self.probability:
            return x_BS
        return torch.where(torch.rand(x_BS.shape, device=x_BS.device) < self.probability, UNKNOWN, x_BS)


class Classifier(nn.Module):
    """Texts to a probability for each label. Of two labels the head gives one logit, that of the second."""

    def __init__(self, tokens: int, labels: int, select: Selection, settings: Mapping[str, Setting]) -> None:
        super().__init__()
        hidden, dropout = int(settings["hidden"]), float(settings["dropout"])
        self.forget = Forget(float(settings["token_dropout"]))
        self.encode, width = _encoder(tokens, int(settings["embedding"]))
        self.core = Core(width, hidden, int(settings["layers"]), dropout)
        self.select = Select(select)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(2 * hidden if select == "mean_max" else hidden, 1 if labels == 2 else labels)

    def logits(self, x_BS: Tensor, lengths_B: Tensor) -> Tensor:
        """(B,C), or of two labels (B,): the second one's."""
        z_BSE = self.dropout(self.encode(self.forget(x_BS)))
        out_BSH, _ = self.core(z_BSE)
        logits: Tensor = self.head(self.dropout(self.select(out_BSH, lengths_B)))
        return logits.squeeze(1) if logits.shape[1] == 1 else logits

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Probabilities (B,C)."""
        logits = self.logits(x, lengths)
        if logits.dim() == 2:
            return logits.softmax(1)
        return torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)

    def outputs(self, batch: Batch, state: State | None) -> tuple[Tensor, State | None]:
        """The logits; no state goes from text to text."""
        assert batch.lengths is not None
        return self.logits(batch.x, batch.lengths), state


class NextToken(nn.Module):
    """A text so far, as its last tokens and the state before them, to the logits of each next token."""

    def __init__(self, tokens: int, settings: Mapping[str, Setting]) -> None:
        super().__init__()
        hidden, dropout = int(settings["hidden"]), float(settings["dropout"])
        self.encode, width = _encoder(tokens, int(settings["embedding"]))
        self.core = Core(width, hidden, int(settings["layers"]), dropout)
        self.select = Select("all")
        self.dropout = nn.Dropout(dropout)
        self.head = Head(hidden, tokens)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B,S) and the state (L,B,H) before them to logits (B,S,V) and the state after them."""
        out_BSH, after = self.core(self.encode(x), (h, c))
        logits_NV: Tensor = self.head(self.dropout(self.select(out_BSH)))
        return logits_NV.view(x.shape[0], x.shape[1], logits_NV.shape[1]), *after

    def start(self, batch: int) -> State:
        """The state before any token: zeros."""
        zeros = torch.zeros(self.core.num_layers, batch, self.core.hidden_size, device=self.head.weight.device)
        return zeros, zeros

    def outputs(self, batch: Batch, state: State | None) -> tuple[Tensor, State | None]:
        """The logits (B,S,V), and the state that the next batch goes on from, without its history."""
        h, c = state if batch.carried and state is not None else self.start(len(batch.x))
        logits, h, c = self(batch.x, h, c)
        return logits, (h.detach(), c.detach())


def _encoder(tokens: int, embedding: int) -> tuple[nn.Module, int]:
    """What makes numbers of tokens, and their width; an embedding of no width is one-hot."""
    return (nn.Embedding(tokens, embedding), embedding) if embedding else (OneHot(tokens), tokens)


def build_classifier(card: ClassifierCard) -> Classifier:
    """The network that a card describes, with fresh weights. Raises ValueError naming the setting that is wrong."""
    select: Selection = str(card.hyperparameters["select"])  # type: ignore[assignment]  # Select checks it
    return Classifier(card.tokens, len(card.labels), select, card.hyperparameters)


def build_next_token(card: NextTokenCard) -> NextToken:
    """The network that a card describes, with fresh weights."""
    return NextToken(card.tokens, card.hyperparameters)
