"""A small RNN and a small world with their inputs, and comparisons of any scan with the loop's."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ostinato import scan
from zoo.playing import loop

D = torch.float64
T, B, H = 5, 3, 4


def leaf(*shape: int, dtype: torch.dtype = D) -> Tensor:
    return (torch.randn(*shape, dtype=D) / 2).to(dtype).requires_grad_()


def inputs(dtype: torch.dtype = D) -> tuple[Tensor, Tensor, Tensor]:
    """W, init, xs."""
    return leaf(H, H, dtype=dtype), leaf(B, H, dtype=dtype), leaf(T, B, H, dtype=dtype)


def rnn(W: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda h, x: torch.tanh(x + h @ W)


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-11) -> None:
    for a, b in zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def both(f: Callable[[Any], Any]) -> None:
    """`f(how)` is the same for the loop and for scan; twice, as found and as remembered."""
    expected = f(loop)
    for _ in range(2):
        assert_same(f(scan), expected)


def gradients(how: Any, step: Any, leaves: list[Tensor], init: Any, xs: Any) -> Any:
    """Carry, outputs and the gradients of the sum of their squares, zeros where there is none."""
    carry, ys = how(step, init, xs)
    outs = [o for o in pytree.tree_leaves((carry, ys)) if o.requires_grad]
    if not outs:
        return carry, ys, None
    found = torch.autograd.grad(sum((o * o).sum() for o in outs), leaves, allow_unused=True)
    zeros = map(torch.zeros_like, leaves)
    return carry, ys, [z if g is None else g for g, z in zip(found, zeros, strict=True)]


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape or (H, H), dtype=D) / 2)


def module(kind: Callable[..., Any], *args: Any) -> Any:
    return kind(*args).to(D)


def outcome(how: Any, step: Any, init: Tensor, xs: Tensor, leaves: list[Tensor]) -> list[Any]:
    init, xs = init.clone().requires_grad_(), xs.clone().requires_grad_()
    carry, ys = how(step, init, xs)
    outs = [*pytree.tree_leaves(carry), *pytree.tree_leaves(ys)]
    if not torch.is_grad_enabled():
        return outs
    total = sum((o * o).sum() for o in outs)
    grads = torch.autograd.grad(total, [init, xs, *leaves], allow_unused=True)
    zeros = [torch.zeros_like(t) for t in (init, xs, *leaves)]
    return outs + [z if g is None else g for g, z in zip(grads, zeros, strict=True)]


def given(seed: int = 0, dtype: torch.dtype = D) -> tuple[Tensor, Tensor]:
    """init and xs, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    init, xs = (torch.randn(s, dtype=D, generator=random) for s in ((B, H), (T, B, H)))
    return init.to(dtype), xs.to(dtype)


def assert_like_the_loop(step: Any, leaves: list[Tensor], when: str = "") -> list[Tensor]:
    """Values and gradients of scan are the loop's, which are returned."""
    theirs = outcome(loop, step, *given(), leaves)
    ours = outcome(scan, step, *given(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-11, equal_nan=True), (
            f"{when}: {(a - b).abs().max()}"
        )
    return theirs


class Cell(nn.Module):
    """A cell whose forward reads something of every kind that modules hold."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.W, self.act, self.drop = weight(), nn.Tanh(), nn.Dropout(0.5)
        self.config, self._scales = types.SimpleNamespace(scale=1.0), [1.0]
        self.listed = [torch.ones(H, dtype=D)]
        self.register_buffer("shift", torch.zeros(H, dtype=D))

    def squash(self, a: Tensor) -> Tensor:
        return self.act(a)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        a = self.squash(x + h @ self.W + self.shift) * self.config.scale * self._scales[0]
        return a * self.gain * self.listed[0] * (1 if self.training else 0.5)


class World:
    """What the steps of a test read and change: weights, numbers, containers, objects, modules.

    A test writes its steps over `w`, a world, and its changes as statements: "w.k = 0.5".
    """

    def __init__(self) -> None:
        class Base:
            k, n = 1.0, 0

            def act(self, a: Tensor) -> Tensor:
                return torch.tanh(a) * self.k

        class Thing(Base):
            @property
            def double(self) -> float:
                return 2 * self.k

            @staticmethod
            def still(a: Tensor) -> Tensor:
                return torch.tanh(a)

            def __call__(self, a: Tensor) -> Tensor:
                return torch.tanh(a) * self.k

            def count(self) -> int:
                self.n += 1
                return self.n

        self.W, self.V, self.b = weight(), weight(), weight(H)
        self.weights = [weight(), weight()]
        self.linear, self.cell = module(nn.Linear, H, H), Cell()
        self.stack = nn.Sequential(nn.Linear(H, H), nn.LeakyReLU(0.1)).to(D)
        self.k: Any = 1.0
        self.n, self.mode, self.flag, self.maybe = 0, "tanh", True, None
        self.log: list[Any] = []
        self.memo: Any = None
        self.table: dict[Any, Any] = {"k": 1.0, "in": {"k": [1.0, 2.0]}, "pair": (1.0, 2.0)}
        self.listed: Any = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        self.act: Any = torch.tanh
        self.inner = types.SimpleNamespace(k=1.0, W=weight(), deep=types.SimpleNamespace(k=1.0))
        self.Base, self.Thing, self.thing = Base, Thing, Thing()
        self.config = types.ModuleType("config_of_a_test")
        vars(self.config).update(k=1.0)
        self.scope: dict[str, Any] = {"torch": torch, "w": self, "k": 1.0, "n": 0}
        self.last: Any = None  # the step that was made last

    def function(self, body: str) -> Any:
        """`def step(h, x)` with globals of its own: the world's scope."""
        exec("def step(h, x):\n    " + body.replace("\n", "\n    "), self.scope)
        return self.scope["step"]

    def leaves(self) -> list[Tensor]:
        """Each tensor that a gradient may be wanted of, once."""
        found: dict[int, Tensor] = {}
        for held in [*vars(self).values(), *getattr(self.inner, "__dict__", {}).values()]:
            many = held.parameters() if isinstance(held, nn.Module) else pytree.tree_leaves(held)
            found |= {id(t): t for t in many if isinstance(t, Tensor)}
        return [t for t in found.values() if t.requires_grad and t.is_leaf]


class Net(nn.Module):
    """A projection, a scan, a readout; with the loop as `how`, what is expected of it."""

    def __init__(self, how: Any = scan, layer: nn.Module | None = None):
        super().__init__()
        self.how, self.layer = how, layer
        self.into, self.W = module(nn.Linear, H, H), weight()
        self.unused = nn.Parameter(torch.randn(3, dtype=D))

    def step(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.into(x) + h @ self.W)

    def forward(self, init: Tensor, xs: Tensor, how: Any = None) -> Tensor:
        carry, ys = (how or self.how)(self.step, init, torch.relu(xs) * 2)
        return torch.sin(ys) + carry + (0 if self.layer is None else self.layer(ys)[0])
