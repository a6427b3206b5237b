"""`transforms`: a recurrence under torch.func, in units of its plain gradient.

A row is a transform, a network and a size. The network is an LSTM or a loop of GRU cells; beside
ours are PyTorch's own, and for the LSTM the same transform of a lax.scan in JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks.harness import QUICK, Contender, Effort, measure, ratio
from benchmarks.peers_jax import require_jax
from benchmarks.problem import NotHereError
from benchmarks.results import Absent, Bound, Row, Spec

SIZES = ((50, 64, 32), (28, 128, 128))  # T, B, H
# The most that a transform may take, in plain gradients of the same network.
WANTED = {
    "grad": 1.3,
    "vmap of grad": 2.5,
    "vmap over parameters": 1.5,
    "jvp": 1.2,
    "jvp of grad": 4.0,
    "grad of grad": 4.0,
}
IN_JAX = ("vmap over parameters", "jvp", "jvp of grad")
MEMBERS = 4


def specs(quick: bool) -> list[Spec]:
    sizes = ((3, 4, 8),) if quick else SIZES
    return [
        Spec(
            name := f"{net}/{size[0]}x{size[1]}x{size[2]}/{transform}".replace(" ", "_"),
            partial(_row, name, net, size, transform, quick),
        )
        for net in ("lstm", "loop")
        for size in sizes
        for transform in WANTED
    ]


def _row(name: str, net: str, size: tuple[int, int, int], transform: str, quick: bool) -> Row:
    ours, theirs = _networks(net, size)
    plain = replace(ours.contender("plain gradient"), name="its plain gradient")
    peers: list[Contender | Absent] = [
        theirs.contender(transform),
        theirs.contender("plain gradient"),
    ]
    if net == "lstm" and transform in IN_JAX:
        peers.append(_in_jax(size, transform))
    tried = [_tried(peer) for peer in peers]
    absent = tuple([peer for peer in tried if isinstance(peer, Absent)])
    runnable = [peer for peer in tried if isinstance(peer, Contender)]
    contenders = [ours.contender(transform), plain, *runnable]
    for contender in contenders:
        for _ in range(3):
            contender.run()
    samples = measure(contenders, QUICK if quick else Effort())
    units = ratio(samples[0], samples[1])
    timings = (samples[0].timing(), *(s.timing(samples[0]) for s in samples[1:]))
    bound = Bound("over the plain gradient", WANTED[transform], units, False)
    title = f"{transform}, {'LSTM' if net == 'lstm' else 'a loop of GRU cells'}, T×B×H = {size}"
    return Row(name, title, timings, absent, (bound,))


def _tried(peer: Contender | Absent) -> Contender | Absent:
    if isinstance(peer, Contender):
        try:
            peer.run()
        except RuntimeError as error:  # a transform that PyTorch's layer does not have
            return Absent(peer.name, str(error).split(".")[0])
    return peer


@dataclass(frozen=True)
class Network:
    """A network on one input, and what is computed of it."""

    name: str
    module: Any
    x: Any

    def contender(self, what: str) -> Contender:
        return Contender(f"{self.name}: {what}", self._runs()[what])

    def _runs(self) -> dict[str, Callable[[], Any]]:
        import torch
        from torch.func import functional_call, grad, jvp, vmap

        module, x = self.module, self.x
        weights = {key: p.detach() for key, p in module.named_parameters()}
        along = {key: torch.ones_like(p) for key, p in weights.items()}
        stacked = {key: torch.stack([p] * MEMBERS) for key, p in weights.items()}

        def loss(weights: Any, x: Any) -> Any:
            return functional_call(module, weights, (x,))[0].square().mean()

        def of_a_row(weights: Any, x: Any) -> Any:
            return loss(weights, x[:, None])

        def slope(weights: Any) -> Any:
            found = grad(loss)(weights, x)
            return sum((found[key] * along[key]).sum() for key in found)

        def plain() -> Any:
            return torch.autograd.grad(module(x)[0].square().mean(), list(module.parameters()))

        return {
            "plain gradient": plain,
            "grad": lambda: grad(loss)(weights, x),
            "vmap of grad": lambda: vmap(grad(of_a_row), (None, 1))(weights, x),
            "vmap over parameters": lambda: vmap(loss, (0, None))(stacked, x),
            "jvp": lambda: jvp(lambda w: loss(w, x), (weights,), (along,)),
            "jvp of grad": lambda: jvp(lambda w: grad(loss)(w, x), (weights,), (along,)),
            "grad of grad": lambda: grad(slope)(weights),
        }


def _networks(net: str, size: tuple[int, int, int]) -> tuple[Network, Network]:
    """Ours and PyTorch's."""
    import torch
    from torch import Tensor, nn

    import ostinato

    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(H, H)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h, states = x.new_zeros(x.shape[1], H), []
            for t in range(x.shape[0]):
                h = self.cell(x[t], h)
                states.append(h)
            return torch.stack(states), h

    T, B, H = size
    torch.manual_seed(0)
    x = torch.randn(T, B, H)
    if net == "lstm":
        ours, theirs = ostinato.nn.LSTM(H, H), nn.LSTM(H, H)
        return Network("ostinato.nn.LSTM", ours, x), Network("torch.nn.LSTM", theirs, x)
    looped = ostinato.accelerate(Cells(), loops=True)
    return Network("ostinato.loop", looped, x), Network("PyTorch's loop", Cells(), x)


def _in_jax(size: tuple[int, int, int], transform: str) -> Contender | Absent:
    name = f"JAX lax.scan, jit: {transform}"
    try:
        jax = require_jax()
    except NotHereError as why:
        return Absent(name, str(why))
    jnp, (T, B, H) = jax.numpy, size
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    x = jax.random.normal(keys[0], (T, B, H))
    shapes = ((H, 4 * H), (H, 4 * H), (4 * H,))
    weights = tuple(jax.random.normal(k, s) / H**0.5 for k, s in zip(keys, shapes, strict=True))

    def loss(weights: Any) -> Any:
        U, W, b = weights

        def step(carry: Any, x: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(x @ U + h @ W + b, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((B, H))
        return jnp.square(jax.lax.scan(step, (zeros, zeros), x, unroll=4)[1]).mean()

    along = jax.tree.map(jnp.ones_like, weights)
    many = jax.tree.map(lambda w: jnp.stack([w] * MEMBERS), weights)
    functions = {
        "vmap over parameters": (jax.vmap(loss), (many,)),
        "jvp": (lambda w, v: jax.jvp(loss, (w,), (v,)), (weights, along)),
        "jvp of grad": (lambda w, v: jax.jvp(jax.grad(loss), (w,), (v,)), (weights, along)),
    }
    function, arguments = functions[transform]
    compiled = jax.jit(function)
    return Contender(name, lambda: jax.block_until_ready(compiled(*arguments)))
