"""The networks of texts: tokens (B,S) int64 through encode, core, select and head. Shapes: protocol.py."""

from collections.abc import Mapping, Sequence
from typing import TypeVar
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.card import ClassifierCard, NextTokenCard, Setting
from model.networks.protocol import Batch, Core, Head, Select, Selection, State

UNKNOWN = 1
GROUPS, MOST_GROUPS = 20_000, 24
"""Rows that the groups of letters share, and how many of a word's groups count."""
Table = TypeVar("Table", nn.Embedding, nn.EmbeddingBag)


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


class SharedDropout(nn.Module):
    """Dropout that leaves out the same places of every step in a row, (B,S,E) -> (B,S,E)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(probability)

    def forward(self, z_BSE: Tensor) -> Tensor:
        """(B,S,E) -> (B,S,E)."""
        kept: Tensor = self.dropout(torch.ones_like(z_BSE[:, :1]))
        return z_BSE * kept


class Subwords(nn.Module):
    """An embedding of words whose parts count too: each word's own row, and the mean of those of its letter groups.

    So that words of one stem are alike before either is known well: fastText's idea (Bojanowski et al. 2017,
    arXiv:1607.04606). What it gives depends on the word alone, so `folded` is a plain embedding that gives it too.
    """

    groups: Tensor

    def __init__(self, groups: Tensor, width: int) -> None:
        super().__init__()
        self.words = _small(nn.Embedding(len(groups), width))
        self.parts = _small(nn.EmbeddingBag(GROUPS + 1, width, mode="mean", padding_idx=0))
        self.register_buffer("groups", groups, persistent=False)

    def forward(self, x_BS: Tensor) -> Tensor:
        """(B,S) -> (B,S,E)."""
        tokens_T, places_BS = torch.unique(x_BS, return_inverse=True)
        return functional.embedding(places_BS, self.words(tokens_T) + self.parts(self.groups[tokens_T]))

    @torch.no_grad()
    def folded(self) -> nn.Embedding:
        """The plain embedding (V,E) that gives the same."""
        table = self.words.weight + self.parts(self.groups)
        plain = nn.Embedding(*table.shape)
        plain.weight.copy_(table)
        return plain


def letter_groups(entries: Sequence[str]) -> Tensor:
    """The numbers of each word's groups of 3 and 4 letters, (V,24) int64, 0 where there are fewer; begin and end count.

    Padding and the unknown token come first, and have none.
    """
    rows = torch.zeros(len(entries) + 2, MOST_GROUPS, dtype=torch.int64)
    for row, entry in enumerate(entries, start=2):
        word = f"<{entry}>"
        groups = [word[at : at + size] for size in (3, 4) for at in range(len(word) - size + 1)]
        numbers = [1 + crc32(group.encode()) % GROUPS for group in groups[:MOST_GROUPS]]
        rows[row, : len(numbers)] = torch.tensor(numbers)
    return rows


class Reader(nn.Module):
    """Tokens to logits: the LSTM reads a text forwards, and another one, where it reads `both_ways`, backwards."""

    def __init__(
        self, encode: nn.Module, width: int, outputs: int, select: Selection, settings: Mapping[str, Setting]
    ) -> None:
        super().__init__()
        hidden, layers, dropout = int(settings["hidden"]), int(settings["layers"]), float(settings["dropout"])
        self.forget = Forget(float(settings["token_dropout"]))
        self.encode, self.drop = encode, SharedDropout(float(settings["embedding_dropout"]))
        directions = 2 if settings["both_ways"] else 1
        self.cores = nn.ModuleList(_remembering(Core(width, hidden, layers, dropout)) for _ in range(directions))
        self.select = Select(select)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(directions * (2 if select == "mean_max" else 1) * hidden, outputs)

    def forward(self, x_BS: Tensor, lengths_B: Tensor) -> Tensor:
        """(B,O)."""
        z_BSE = self.drop(self.encode(self.forget(x_BS)))
        ways = [z_BSE] if len(self.cores) == 1 else [z_BSE, backwards(z_BSE, lengths_B)]
        rows = [self.select(core(way)[0], lengths_B) for core, way in zip(self.cores, ways, strict=True)]
        logits: Tensor = self.head(self.dropout(torch.cat(rows, dim=1)))
        return logits


def backwards(z_BSE: Tensor, lengths_B: Tensor) -> Tensor:
    """Each row's real steps from the last to the first, (B,S,E); what is behind them means nothing."""
    rows, steps = (torch.arange(size, device=z_BSE.device) for size in z_BSE.shape[:2])
    return z_BSE[rows.unsqueeze(1), (lengths_B.unsqueeze(1) - 1 - steps).clamp(min=0)]


class Classifier(nn.Module):
    """Texts to a probability for each label: the mean of its members' logits.

    Of two labels a member gives one logit, that of the second. In training each member has its own share of a batch's
    rows, one share after another.
    """

    def __init__(
        self,
        tokens: int,
        labels: int,
        select: Selection,
        settings: Mapping[str, Setting],
        entries: Sequence[str] = (),
    ) -> None:
        super().__init__()
        outputs, groups = 1 if labels == 2 else labels, letter_groups(entries) if entries else None
        self.members = nn.ModuleList(
            Reader(*_encoder(tokens, int(settings["embedding"]), groups), outputs, select, settings)
            for _ in range(int(settings["members"]))
        )

    def logits(self, x_BS: Tensor, lengths_B: Tensor) -> Tensor:
        """(B,C), or of two labels (B,): the second one's."""
        count = len(self.members)
        if self.training:
            shares = zip(self.members, x_BS.chunk(count), lengths_B.chunk(count), strict=True)
            logits = torch.cat([member(x, lengths) for member, x, lengths in shares])
        else:
            logits = torch.stack([member(x_BS, lengths_B) for member in self.members]).mean(0)
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

    def fold(self) -> "Classifier":
        """Itself, its members' embeddings of words and their parts made plain ones."""
        for member in self.members:
            assert isinstance(member, Reader)
            if isinstance(member.encode, Subwords):
                member.encode = member.encode.folded()
        return self


class NextToken(nn.Module):
    """A text so far, as its last tokens and the state before them, to the logits of each next token."""

    def __init__(self, tokens: int, settings: Mapping[str, Setting]) -> None:
        super().__init__()
        hidden, dropout = int(settings["hidden"]), float(settings["dropout"])
        width = int(settings["embedding"]) or tokens
        self.encode = nn.Embedding(tokens, width) if settings["embedding"] else OneHot(tokens)
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


def _encoder(tokens: int, embedding: int, groups: Tensor | None) -> tuple[nn.Module, int]:
    """What makes numbers of tokens, and their width; an embedding of no width is one-hot, with groups it has parts."""
    if not embedding:
        return OneHot(tokens), tokens
    if groups is None:
        return _small(nn.Embedding(tokens, embedding)), embedding
    return Subwords(groups, embedding), embedding


def _small(table: Table) -> Table:
    """A table of rows to begin with that dropout and clipping do not have to tame first."""
    nn.init.normal_(table.weight, std=0.1)
    return table


def _remembering(core: Core) -> Core:
    """An LSTM that begins with its forget gates open."""
    for layer in range(core.num_layers):
        with torch.no_grad():
            getattr(core, f"bias_hh_l{layer}")[core.hidden_size : 2 * core.hidden_size] += 1.0
    return core


def build_classifier(card: ClassifierCard, entries: Sequence[str] = ()) -> Classifier:
    """The network that a card describes, with fresh weights, for words whose parts count too where `entries` are given.

    Raises ConfigError naming the setting that is wrong.
    """
    select: Selection = str(card.hyperparameters["select"])  # type: ignore[assignment]  # Select checks it
    return Classifier(card.tokens, len(card.labels), select, card.hyperparameters, entries)


def build_next_token(card: NextTokenCard) -> NextToken:
    """The network that a card describes, with fresh weights."""
    return NextToken(card.tokens, card.hyperparameters)
