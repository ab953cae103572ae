"""Text networks: tokens (B,S) int64 through encode, core, select and head. Shapes: protocol.py."""

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
"""Hash buckets of character n-grams, and the most n-grams of a word."""
Table = TypeVar("Table", nn.Embedding, nn.EmbeddingBag)


class OneHot(nn.Module):
    """One-hot encoding, (B,S) -> (B,S,V)."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x_BS: Tensor) -> Tensor:
        """(B,S) -> (B,S,V) float32."""
        return functional.one_hot(x_BS, self.tokens).float()


class TokenDropout(nn.Module):
    """Token dropout: in training, replaces tokens by the unknown one, so that no text depends on a single word."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x_BS: Tensor) -> Tensor:
        """(B,S) -> (B,S)."""
        if not self.training or not self.probability:
            return x_BS
        return torch.where(torch.rand(x_BS.shape, device=x_BS.device) < self.probability, UNKNOWN, x_BS)


class SharedDropout(nn.Module):
    """Variational dropout: one mask for all steps of a row, (B,S,E) -> (B,S,E)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(probability)

    def forward(self, z_BSE: Tensor) -> Tensor:
        """(B,S,E) -> (B,S,E)."""
        kept: Tensor = self.dropout(torch.ones_like(z_BSE[:, :1]))
        return z_BSE * kept


class Subwords(nn.Module):
    """Subword embeddings: a word's own vector plus the mean vector of its character n-grams.

    Rare words share their stems' vectors, as in fastText (Bojanowski et al. 2017, arXiv:1607.04606). The result depends
    on the word alone, so `folded` can precompute it as a plain embedding.
    """

    groups: Tensor

    def __init__(self, groups: Tensor, width: int) -> None:
        super().__init__()
        self.words = _with_small_weights(nn.Embedding(len(groups), width))
        self.parts = _with_small_weights(nn.EmbeddingBag(GROUPS + 1, width, mode="mean", padding_idx=0))
        self.register_buffer("groups", groups, persistent=False)

    def forward(self, x_BS: Tensor) -> Tensor:
        """(B,S) -> (B,S,E)."""
        tokens_T, places_BS = torch.unique(x_BS, return_inverse=True)
        return functional.embedding(places_BS, self.words(tokens_T) + self.parts(self.groups[tokens_T]))

    @torch.no_grad()
    def folded(self) -> nn.Embedding:
        """The equivalent plain embedding (V,E)."""
        table = self.words.weight + self.parts(self.groups)
        plain = nn.Embedding(*table.shape)
        plain.weight.copy_(table)
        return plain


def character_ngrams(entries: Sequence[str]) -> Tensor:
    """The hash buckets of each word's character 3- and 4-grams, (V,24) int64, zero-padded; `<` and `>` mark its ends.

    The first two rows, padding and the unknown token, are zero.
    """
    rows = torch.zeros(len(entries) + 2, MOST_GROUPS, dtype=torch.int64)
    for row, entry in enumerate(entries, start=2):
        word = f"<{entry}>"
        groups = [word[at : at + size] for size in (3, 4) for at in range(len(word) - size + 1)]
        numbers = [1 + crc32(group.encode()) % GROUPS for group in groups[:MOST_GROUPS]]
        rows[row, : len(numbers)] = torch.tensor(numbers)
    return rows


class TextNetwork(nn.Module):
    """Tokens to logits by an LSTM; with `both_ways` a second LSTM reads the text backwards."""

    def __init__(
        self, encode: nn.Module, width: int, outputs: int, select: Selection, settings: Mapping[str, Setting]
    ) -> None:
        super().__init__()
        hidden, layers, dropout = int(settings["hidden"]), int(settings["layers"]), float(settings["dropout"])
        self.forget = TokenDropout(float(settings["token_dropout"]))
        self.encode, self.drop = encode, SharedDropout(float(settings["embedding_dropout"]))
        directions = 2 if settings["both_ways"] else 1
        self.cores = nn.ModuleList(_with_open_gates(Core(width, hidden, layers, dropout)) for _ in range(directions))
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
    """Each row's real steps in reverse, (B,S,E); the values on padding are undefined."""
    rows, steps = (torch.arange(size, device=z_BSE.device) for size in z_BSE.shape[:2])
    return z_BSE[rows.unsqueeze(1), (lengths_B.unsqueeze(1) - 1 - steps).clamp(min=0)]


class Classifier(nn.Module):
    """Texts to the probability of each label, from the mean of the members' logits.

    For two labels a member outputs one logit, that of the second. In training the rows of a batch are split into
    consecutive chunks, one per member.
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
        outputs, groups = 1 if labels == 2 else labels, character_ngrams(entries) if entries else None
        self.members = nn.ModuleList(
            TextNetwork(*_encoder(tokens, int(settings["embedding"]), groups), outputs, select, settings)
            for _ in range(int(settings["members"]))
        )

    def logits(self, x_BS: Tensor, lengths_B: Tensor) -> Tensor:
        """(B,C), or for two labels (B,), the logit of the second."""
        count = len(self.members)
        if self.training:
            chunks = zip(self.members, x_BS.chunk(count), lengths_B.chunk(count), strict=True)
            logits = torch.cat([member(x, lengths) for member, x, lengths in chunks])
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
        """The logits; texts carry no state."""
        assert batch.lengths is not None
        return self.logits(batch.x, batch.lengths), state

    def fold(self) -> "Classifier":
        """Replaces subword embeddings by equivalent plain ones, in place; returns self."""
        for member in self.members:
            assert isinstance(member, TextNetwork)
            if isinstance(member.encode, Subwords):
                member.encode = member.encode.folded()
        return self


class NextToken(nn.Module):
    """A language model: tokens and the state before them to the logits of each next token."""

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
        """The logits (B,S,V), and the detached state from which the next batch continues."""
        h, c = state if batch.carried and state is not None else self.start(len(batch.x))
        logits, h, c = self(batch.x, h, c)
        return logits, (h.detach(), c.detach())


def _encoder(tokens: int, embedding: int, groups: Tensor | None) -> tuple[nn.Module, int]:
    """The token encoder and its width: one-hot for embedding width 0, else an embedding, with n-grams if given."""
    if not embedding:
        return OneHot(tokens), tokens
    if groups is None:
        return _with_small_weights(nn.Embedding(tokens, embedding)), embedding
    return Subwords(groups, embedding), embedding


def _with_small_weights(table: Table) -> Table:
    """The embedding with a small initialisation, suited to dropout and gradient clipping."""
    nn.init.normal_(table.weight, std=0.1)
    return table


def _with_open_gates(core: Core) -> Core:
    """The LSTM with its forget gate bias initialised to 1 more."""
    for layer in range(core.num_layers):
        with torch.no_grad():
            getattr(core, f"bias_hh_l{layer}")[core.hidden_size : 2 * core.hidden_size] += 1.0
    return core


def build_classifier(card: ClassifierCard, entries: Sequence[str] = ()) -> Classifier:
    """The network that a card describes, with fresh weights; with subword embeddings of `entries`, if there are any.

    Raises ConfigError naming the wrong setting.
    """
    select: Selection = str(card.hyperparameters["select"])  # type: ignore[assignment]  # Select checks it
    return Classifier(card.tokens, len(card.labels), select, card.hyperparameters, entries)


def build_next_token(card: NextTokenCard) -> NextToken:
    """The network that a card describes, with fresh weights."""
    return NextToken(card.tokens, card.hyperparameters)
