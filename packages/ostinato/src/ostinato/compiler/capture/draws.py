"""Random numbers of a step: PyTorch's generators draw them beforehand, in the loop's order.

    draw         one call of the step that takes numbers from a generator, reduced to the method
                 that fills a tensor: `torch.randn(B, 4)` is `torch.empty(B, 4).normal_()`
    FindDraws    a mode that lists the draws of a run of the step, in order
    Drawn        the numbers of all steps, one buffer `[T, …]` a draw, filled step by step
    GiveNumbers  a mode that gives the step these numbers where it draws

A recording has the numbers as further leaves of xs, so that both passes, segments and second
derivatives read the same buffers. Distributions of computed parameters are drawn in their standard
form: PyTorch's kernels compute `normal(mean, std)` as z · std + mean, and `bernoulli(p)` as u < p.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ostinato.compiler import torch_private
from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.errors import ANOTHER_COURSE, Unsupported
from ostinato.compiler.torch_compat import random_state, set_random_state

if TYPE_CHECKING:
    from ostinato.arguments import Arguments

aten = torch.ops.aten
# By ATen's name, in place and functional: the method that fills a tensor with arguments [1:].
_FILLS = {
    name: f"{method}_"
    for method in ("cauchy", "exponential", "geometric", "log_normal", "random", "uniform")
    for name in (method, f"{method}_")
} | {"normal_": "normal_", "normal_functional": "normal_"}
_COMPUTED = (torch.float32, torch.float64)  # types of probabilities, means and deviations


class States:
    """The states of random generators, to be restored."""

    def __init__(self, generators: Iterable[torch.Generator] = ()) -> None:
        self._default = random_state()
        self._others: dict[int, tuple[torch.Generator, Tensor]] = {}
        for generator in generators:
            self.meet(generator)

    def meet(self, generator: torch.Generator) -> None:
        """Save the state of a generator that is not yet among them."""
        if generator is not torch.default_generator and id(generator) not in self._others:
            self._others[id(generator)] = generator, generator.get_state()

    def now(self) -> States:
        """The present states of the same generators."""
        return States(generator for generator, _ in self._others.values())

    def put_back(self) -> None:
        """Give the generators these states again."""
        # Only if it changed: another thread may draw, too, and would draw the same numbers again.
        if not torch.equal(self._default, random_state()):
            set_random_state(self._default)
        for generator, state in self._others.values():
            generator.set_state(state)

    def are_now(self) -> bool:
        """Whether all generators have these states."""
        same = torch.equal(self._default, random_state())
        return same and all(torch.equal(s, g.get_state()) for g, s in self._others.values())


@dataclass(frozen=True)
class Draw:
    """One draw of a step.

    Attributes:
        fill, args: the method of a tensor that draws its elements, and the arguments.
        shape: the shape of that tensor, with a symbolic batch on one axis, or on none if all rows
            share it.
        dtype: the dtype of that tensor.
        generator: the generator that the step passes; None: PyTorch's own.
        rank: the number of axes of a row of the carry, to which numbers that all rows share
            broadcast.
    """

    fill: str
    args: tuple[Any, ...]
    shape: tuple[int | Batch, ...]
    dtype: torch.dtype
    generator: torch.Generator | None
    rank: int = 0

    @property
    def axis(self) -> int | None:
        """The axis of the batch."""
        return next((i for i, n in enumerate(self.shape) if isinstance(n, Batch)), None)

    def sizes(self, n_rows: int) -> list[int]:
        return [n.times * n_rows if isinstance(n, Batch) else n for n in self.shape]

    def as_rows(self, buffer: Tensor, n_rows: int) -> Tensor:
        """The numbers of all steps `[T, …]` as a leaf of xs, `[T, B, …]`."""
        if self.axis is None:
            n_steps, *shape = buffer.shape
            ones = [1] * max(self.rank - len(shape), 0)
            return buffer.view(n_steps, 1, *ones, *shape).expand(n_steps, n_rows, *ones, *shape)
        axis = self.axis + 1
        return buffer.unflatten(axis, (n_rows, -1)).movedim(axis, 1)

    def as_drawn(self, rows: Tensor) -> Tensor:
        """The numbers of one step `[B, …]` in the shape of the step's call: the inverse of
        as_rows."""
        if self.axis is None:
            return rows
        return rows.movedim(0, self.axis).flatten(self.axis, self.axis + 1)

    def __str__(self) -> str:
        shape = [
            "B" if n == Batch(1) else f"{n.times}B" if isinstance(n, Batch) else str(n)
            for n in self.shape
        ]
        return f"{self.fill.removesuffix('_')} [{', '.join(shape)}]"


Draws = tuple[Draw, ...]


class Drawn:
    """The random numbers of a call: those of every step, in the loop's order.

    Attributes:
        leaves: `[T, B, …]`, one for each draw. Their elements are undefined until `draw`.
    """

    def __init__(self, draws: Draws, n_steps: int, n_rows: int, reverse: bool) -> None:
        self._draws, self._order = draws, range(n_steps)[:: -1 if reverse else 1]
        self._buffers = [
            torch.empty((n_steps, *d.sizes(n_rows)), dtype=d.dtype, device="cpu") for d in draws
        ]
        both = zip(draws, self._buffers, strict=True)
        self.leaves = [draw.as_rows(buffer, n_rows) for draw, buffer in both]

    def draw(self) -> None:
        """Draw the numbers step by step, as the loop does: one large draw would give others."""
        self._before = self.states()
        both = zip(self._draws, self._buffers, strict=True)
        calls = [(getattr(torch.Tensor, d.fill), b, d.args, d.generator) for d, b in both]
        with torch.no_grad():
            for t in self._order:
                for fill, buffer, args, generator in calls:
                    fill(buffer[t], *args, generator=generator)

        self._after = self.states()

    def put_back(self) -> None:
        """Restore the generators' states from before `draw`."""
        self._before.put_back()

    def ended_now(self) -> bool:
        """Whether the generators have the states from after `draw`."""
        return self._after.are_now()

    def states(self) -> States:
        """The present states of the generators."""
        return States(d.generator for d in self._draws if d.generator is not None)


def sample(draws: Draws, n_rows: int) -> list[Tensor]:
    """Numbers for one step, `[B, …]`, from a generator of their own."""
    if not draws:
        return []
    own = torch.Generator()
    own.manual_seed(0)
    apart = tuple(Draw(d.fill, d.args, d.shape, d.dtype, own, d.rank) for d in draws)
    drawn = Drawn(apart, 1, n_rows, False)
    drawn.draw()
    return [leaf[0].clone(memory_format=torch.contiguous_format) for leaf in drawn.leaves]


def given_numbers(step: Callable[..., Any], draws: Draws) -> Callable[..., Any]:
    """The step with the numbers of its draws as a second part of x."""

    def giving(carry: Any, x: Any) -> Any:
        x, numbers = x
        with GiveNumbers(draws, numbers):
            return step(carry, x)

    return giving


def in_order(t: Tensor) -> bool:
    """Whether the axes of a tensor lie in memory in their order, the last one innermost."""
    strides = [s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1 and s > 0]
    return all(a >= b for a, b in itertools.pairwise(strides))


# ---- modes that see the draws of a step


def draws_numbers(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call of ATen may take numbers from a generator.

    Attention without dropout, and dropout outside training, take none.
    """
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    given = {of.name: of.default_value for of in func._schema.arguments}
    given |= dict(zip(given, args, strict=False)) | kwargs
    return all(given.get(name, True) for name in ("dropout_p", "train", "training"))


class _Draws(torch_private.TorchDispatchMode):
    """Sees the calls of a step that draw, once they are taken apart."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # importing torch._dynamo takes a second, and nothing here needs it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not draws_numbers(func, args, kwargs):
            return func(*args, **kwargs)
        found = _call(func, args)
        if found is not None:
            return self.drawing(found, func, args, kwargs)
        with self:
            out = func.decompose(*args, **kwargs)
        if out is NotImplemented:
            raise Unsupported(
                "the step draws random numbers in a way that depends on values, or whose numbers "
                "cannot be drawn before: draw them before the scan, and pass them through xs",
                str(func),
            )
        return out

    def drawing(self, call: _Drawing, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of a call that draws."""
        raise NotImplementedError


class FindDraws(_Draws):
    """Lists the draws of a run of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []

    def drawing(self, call: _Drawing, func: Any, args: Any, kwargs: Any) -> Any:
        """Let it draw, and record how."""
        out, name = func(*args, **kwargs), str(func)
        if not out.is_contiguous():
            raise Unsupported(
                "the step draws random numbers into a tensor that is not contiguous: call "
                "contiguous() on what it is drawn like",
                name,
            )
        if out.is_complex():
            raise Unsupported("the step draws complex numbers: draw their parts", name)
        parameters = () if call.computed is None else (out, *args)
        if any(isinstance(t, Tensor) and t.dtype not in _COMPUTED for t in parameters):
            raise Unsupported("a distribution has another type than float32 or float64", name)
        dtype = call.computed.dtype if call.computed is not None else out.dtype
        shape, generator = tuple(out.shape), kwargs.get("generator")
        if generator is torch.default_generator:
            generator = None
        self.draws.append(Draw(call.fill, call.args, shape, dtype, generator))
        return out


class GiveNumbers(_Draws):
    """Gives a step the next numbers where it draws."""

    def __init__(self, draws: Draws, numbers: list[Tensor]) -> None:
        super().__init__()
        self._next = iter(list(zip(draws, numbers, strict=True)))

    def drawing(self, call: _Drawing, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of the call, from the next numbers."""
        draw, rows = next(self._next, (None, None))
        if draw is None or rows is None or (draw.fill, draw.args) != (call.fill, call.args):
            raise Unsupported(ANOTHER_COURSE, str(func))
        in_place = func._schema.is_mutable
        if in_place and draw.axis is None:
            raise Unsupported(
                "the step draws into a tensor that all rows share: use a function that makes one, "
                "torch.randn(n), or draw it with the rows of the batch",
                str(func),
            )
        value = call.value(draw.as_drawn(rows))
        return aten.copy_.default(args[0], value) if in_place else value


class _Drawing(NamedTuple):
    """A call that draws.

    Attributes:
        fill, args: see Draw.
        value: computes the result of the call from the numbers.
        computed: the first of the tensors that `value` reads; None if it reads none.
    """

    fill: str
    args: tuple[Any, ...]
    value: Callable[[Tensor], Tensor] = aten.clone.default
    computed: Tensor | None = None


def _call(func: Any, args: Any) -> _Drawing | None:
    """How a call of ATen draws its numbers; None if these depend on values, or if its parts
    draw."""
    _, packet, overload = str(func).split(".")
    if packet in _FILLS:
        return _Drawing(_FILLS[packet], tuple(args[1:]))
    match packet, overload:
        case "rand" | "rand_like", "default" | "generator":
            return _Drawing("uniform_", ())
        case "randn" | "randn_like", "default" | "generator":
            return _Drawing("normal_", ())
        case "randint", "default" | "generator":
            return _Drawing("random_", (0, args[0]))
        case "randint", "low" | "low_generator":
            return _Drawing("random_", tuple(args[:2]))
        case "randint_like", "default":
            return _Drawing("random_", (0, args[1]))
        case "randint_like", "low_dtype":
            return _Drawing("random_", tuple(args[1:3]))
        case "normal", "float_float":
            return _Drawing("normal_", tuple(args[:2]))
        case "normal", "Tensor_Tensor" | "Tensor_float" | "float_Tensor":
            mean, std = args if len(args) == 2 else (args[0], 1.0)
            first = next(a for a in args if isinstance(a, Tensor))
            # Detached: autograd gives mean and deviation no gradient.
            return _Drawing("normal_", (), lambda z: aten.detach(z * std + mean), first)
        case "bernoulli", "p":
            return _Drawing("bernoulli_", tuple(args[1:]))
        case "bernoulli_", "float":
            return _Drawing("bernoulli_", tuple(args[1:]) or (0.5,))
        case ("bernoulli", "default") | ("bernoulli" | "bernoulli_", "Tensor"):
            like, p = args[0], args[-1]
            return _Drawing("uniform_", (), lambda u: aten.detach((u < p).to(like.dtype)), p)
    return None


# ---- draws of two batch sizes


def unified(small: list[Draw], large: list[Draw], sizes: tuple[int, int], a: Arguments) -> Draws:
    """The draws of runs on two batch sizes, as draws with a symbolic batch.

    Raises:
        Unsupported: they differ in more than the batch.
    """
    if len(small) != len(large):
        raise Unsupported(ANOTHER_COURSE)
    rank = max(leaf.dim() for leaf in a.init_leaves) - 1
    return tuple([_unified(p, q, sizes, rank) for p, q in zip(small, large, strict=True)])


def _unified(p: Draw, q: Draw, sizes: tuple[int, int], rank: int) -> Draw:
    if p.generator is not q.generator:
        raise Unsupported("the step makes the generator that it draws from: make it before")
    same = (p.fill, p.args, p.dtype, len(p.shape)) == (q.fill, q.args, q.dtype, len(q.shape))
    if not same:
        raise Unsupported(ANOTHER_COURSE, p.fill)
    shape: list[int | Batch] = []
    for m, n in zip(p.shape, q.shape, strict=True):
        assert isinstance(m, int) and isinstance(n, int)
        if m != n and (m % sizes[0] or m * sizes[1] != n * sizes[0]):
            raise Unsupported("the step draws as many numbers as it computes", p.fill)
        shape.append(m if m == n else Batch(m // sizes[0]))
    if sum(isinstance(n, Batch) for n in shape) > 1:
        raise Unsupported("the step draws numbers for pairs of rows", p.fill)
    return Draw(p.fill, p.args, tuple(shape), p.dtype, p.generator, rank)
