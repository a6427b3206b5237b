"""`LanguageNet`: a recurrent network that predicts the next token, and its loss.

The logits of a chunk are by far the largest array of a language model: `[N, V]` for N = T·B tokens,
while the states are `[N, D]`. `next_token_loss` never holds all of them. It works in blocks of
tokens, and computes the gradients of a block right after its logits.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ostinato_learn.hyperparameters import Architecture, arguments, declare, documented
from ostinato_learn.models.body import recurrent, width
from ostinato_learn.models.initialize import initialize
from ostinato_learn.models.stack import Stack

# The state of all layers, [L, B, H]; for the LSTM a pair (h, c); of own cells see `Stack.read_on`.
# Each tensor has the rows as its second axis.
Carry = Any

# Logits of a block: 2²⁰ floats, 4 MB, so that several passes over them find them in the cache.
# 4,096 tokens of 256 characters are one block.
BLOCK = 2**20
TIED_SCALE = 0.1  # tied embeddings begin small, because they are the readout, too


@dataclass(frozen=True)
class LanguageArchitecture(Architecture):
    """The network of a language model."""

    embedding_size: int = declare(128, "Size of a token's embedding; 0 reads it one-hot.", low=0)
    tied: bool = declare(False, "Read out with the embeddings (Press and Wolf 2017).")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bidirectional:
            raise ValueError(
                "bidirectional=True in a language model: its backward half would read the token "
                "that is to be predicted; wanted False"
            )
        if self.init != "default":
            raise ValueError(
                f"init={self.init!r} in a language model, whose embeddings have their own initial "
                "values; wanted 'default'"
            )
        if self.tied and not self.embedding_size:
            raise ValueError(
                "tied=True with embedding_size=0: the readout has no embeddings to share; set "
                "embedding_size, or tied=False"
            )


@dataclass(frozen=True, kw_only=True)
class _LanguageArguments(LanguageArchitecture):
    """The arguments of `LanguageNet`, checked."""

    n_tokens: int = declare(MISSING, "V.", low=1)


@documented
class LanguageNet(torch.nn.Module):
    """Embeddings, a recurrent body and a linear readout of each state.

        s_t = cell(E[token_t], s_{t−1}),   logits_t = V s_t + c

    If tied, V is E, applied to a projection of the state to the size of an embedding:

        logits_t = E (P s_t + b) + c

    Args:
        n_tokens: V, the size of the vocabulary.
        {hyperparameters}
        dropout: share that is dropped of the embeddings, between layers and before the readout, in
            training only.
        embedding_size: size of a token's embedding; 0 reads tokens one-hot.
        tied: whether the readout has the embeddings as its weights.

    Attributes:
        config: the arguments as a dict; `LanguageNet(**net.config)` builds the same network.

    Raises:
        ValueError: an argument of another type or out of its range, or tied without embeddings.

    Example:
        >>> net = LanguageNet(n_tokens=50, cell="gru", hidden_size=16)
        >>> tokens = torch.randint(50, (4, 10))
        >>> states, carry = net(tokens)
        >>> states.shape, net.logits(states).shape
        (torch.Size([4, 10, 16]), torch.Size([4, 10, 50]))
        >>> again, _ = net(tokens, carry)  # goes on from where the sequences ended
    """

    task = "language"  # of the folder that knows it as a graph

    def __init__(
        self,
        n_tokens: int,
        cell: str = Architecture.cell,
        hidden_size: int = Architecture.hidden_size,
        num_layers: int = Architecture.num_layers,
        dropout: float = Architecture.dropout,
        embedding_size: int = _LanguageArguments.embedding_size,
        tied: bool = _LanguageArguments.tied,
    ):
        given = arguments(locals())
        super().__init__()
        checked = _LanguageArguments(**given)
        values = asdict(checked)
        self.config: dict[str, Any] = {name: values[name] for name in given}
        V, E = checked.n_tokens, checked.embedding_size
        self.embedding = torch.nn.Embedding(V, E) if E else None
        self.body = recurrent(checked, E or V)
        self.dropout = torch.nn.Dropout(checked.dropout)
        self.readout = torch.nn.Linear(width(checked), E if checked.tied else V)
        initialize(self.body, self.readout, "default")
        if checked.tied:
            assert self.embedding is not None
            torch.nn.init.uniform_(self.embedding.weight, -TIED_SCALE, TIED_SCALE)
            self.bias = torch.nn.Parameter(torch.zeros(V))

    def forward(
        self, tokens: Tensor, carry: Carry = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Carry]:
        """Read tokens.

        Args:
            tokens: `[B, T]` int64.
            carry: the state before the first token; by default zeros, or the first carry of an own
                cell.
            resets: `[B, T]` bool, the steps before which the state restarts.

        Returns:
            The features for `logits`, `[B, T, D]`, and the last state.
        """
        if self.embedding is None:
            x = F.one_hot(tokens, self.config["n_tokens"]).to(self.readout.weight.dtype)
        else:
            x = self.dropout(self.embedding(tokens))
        if isinstance(self.body, Stack):
            states, carry = self.body.read_on(x, carry, resets)
        else:
            states, carry = self.body(x, carry, resets=resets)
        features = self.dropout(states)
        return (self.readout(features) if self.config["tied"] else features), carry

    def logits(self, features: Tensor) -> Tensor:
        """`[…, V]`, before the softmax, of features `[…, D]`."""
        return F.linear(features, *self.output)

    @property
    def output(self) -> tuple[Tensor, Tensor]:
        """The weights `[V, D]` and biases `[V]` of the last linear map."""
        if self.config["tied"]:
            assert self.embedding is not None
            return self.embedding.weight, self.bias
        return self.readout.weight, self.readout.bias

    def loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, in nats, of features `[…, D]` and the true next tokens, `[…]`."""
        return next_token_loss(features.flatten(0, -2), *self.output, targets.flatten())


def next_token_loss(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, block: int = BLOCK
) -> Tensor:
    """F.cross_entropy(features @ weight.T + bias, targets) in a few megabytes.

    Its memory beside the gradients is one block of logits; it cannot be differentiated twice.

    Args:
        features: `[N, D]`.
        weight, bias: `[V, D]`, `[V]`.
        targets: `[N]` int64, 0…V−1.
        block: the number of logits held at a time; at least those of one token.
    """
    rows = max(1, block // len(weight))
    return _NextTokenLoss.apply(features, weight, bias, targets, rows)


class _NextTokenLoss(torch.autograd.Function):
    """With p = softmax of a row's logits z = W f + b and y its target,

        loss = (1/N) Σ (log Σ exp z − z_y),   ∂loss/∂z = (p − onehot(y)) / N

    and all gradients follow from ∂loss/∂z, which overwrites the logits.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, rows: int
    ) -> Tensor:
        needed = any(ctx.needs_input_grad)
        gradients = [torch.zeros_like(t) for t in (features, weight, bias)] if needed else []
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, len(features), rows):
            part = slice(start, start + rows)
            f, y = features[part], targets[part, None]
            z = torch.addmm(bias, f, weight.T)
            norm = z.logsumexp(1, keepdim=True)
            total += (norm - z.gather(1, y)).sum(dtype=torch.float64)
            if needed:
                z.sub_(norm).exp_()
                z.scatter_add_(1, y, torch.full_like(norm, -1))
                z.div_(len(features))
                to_features, to_weight, to_bias = gradients
                torch.mm(z, weight, out=to_features[part])
                to_weight.addmm_(z.T, f)
                to_bias.add_(z.sum(0))
        ctx.save_for_backward(*gradients)
        return (total / len(features)).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # The gradient of a loss is usually 1; then no multiplication is needed.
        one = gradient.item() == 1
        return (*(g if one else g * gradient for g in ctx.saved_tensors), None, None)
