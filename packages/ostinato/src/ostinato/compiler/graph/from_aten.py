"""From recorded ATen calls to the step graph.

In: a `Recording`, which is the ATen calls of one step and of its gradients, on numbered values.
Out: a `DifferentiableGraph`, which is the same step as nodes: `Forward`, and a `Backward` for each
choice of outputs from which gradients come. values.py translates single calls. Calls with sums over
the batch that a step returns are translated here:

    forward     the node of such a sum holds the contribution of each row. The caller of the program
                adds the rows, and for a mean multiplies by a power of B
    backward    the gradient of such a sum is the same for all rows; the caller gives it already
                divided
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ostinato.compiler.capture.recording import Batch, Call, Recording, Ref
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.aten_reductions import axes_of, reduced
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import QUOTIENT, Node
from ostinato.compiler.graph.rules import Value, batch_axis, name_of
from ostinato.compiler.graph.values import Values, check_dtypes


@dataclass(frozen=True)
class Forward:
    """One step: its inputs and its results."""

    states: tuple[Node, ...]
    xs: tuple[Node, ...]
    new_states: tuple[Node, ...]
    ys: tuple[Node, ...]


@dataclass(frozen=True)
class Backward:
    """The gradients of one step, from those of its new carry and its outputs."""

    d_new_states: tuple[Node, ...]  # absent where none is given
    d_ys: tuple[Node, ...]
    d_captured: tuple[Node | None, ...]  # sums; None where no gradient flows
    d_states: tuple[Node, ...]  # absent where no gradient flows
    d_xs: tuple[Node | None, ...]


class DifferentiableGraph:
    """The graph of a recorded step. Its backward part depends on where gradients come from.

    Args:
        dtype: the floating-point type that every value must have (or bool).

    Raises:
        Unsupported: the engine cannot play the step; `backward` raises it, too.
    """

    def __init__(self, recording: Recording, dtype: Any):
        check_dtypes(recording, dtype)
        self.recording = r = recording
        self.dtype = dtype
        self._values = values = _ForwardValues(recording, dtype, Builder(), {})
        values.take_from_outside()
        states = values.inputs("state", r.states)
        xs = values.inputs("x", r.xs)
        for call in r.calls[: r.n_forward]:
            values.translate(call)
        self.total_ys = tuple([values.known[i].power for i in r.ys])  # None for an output with rows
        if any(values.known[i].power is not None for i in r.new_states):
            raise Unsupported("the carry becomes a sum over the batch")
        new_states, ys = (tuple(map(values.whole, given)) for given in (r.new_states, r.ys))
        self.forward = Forward(states, xs, new_states, ys)

    def backward(self, y_used: tuple[bool, ...], leaves_used: tuple[bool, ...]) -> Backward:
        """The gradients of the step if only these outputs and leaves of the carry have one."""
        r = self.recording
        has_sums = any(power is not None for power in self.total_ys)
        values = _BackwardValues(self._values, has_sums)
        d_new_states = values.inputs("d_state", r.d_new_states, leaves_used)
        d_ys = values.inputs("d_y", r.d_ys, y_used, of_sums=has_sums)
        absent = absent_gradients(r, y_used, leaves_used)
        for call in r.calls[r.n_forward :]:
            given = [i for i in call.outs if i is not None]
            if given and absent.issuperset(given):
                values.set_absent(given)
            else:
                values.translate(call)
        d_captured = tuple([values.sum_of(i) for i in r.d_captured])
        d_states = tuple(
            values.b.absent(state.width) if i is None else values.whole(i)
            for state, i in zip(self.forward.states, r.d_states, strict=True)
        )
        d_xs = [None if i is None or values.is_absent(i) else values.whole(i) for i in r.d_xs]
        return Backward(d_new_states, d_ys, d_captured, d_states, tuple(d_xs))


def absent_gradients(
    r: Recording, y_used: tuple[bool, ...], leaves_used: tuple[bool, ...]
) -> frozenset[int]:
    """The recorded values that do not exist if only these outputs and leaves of the carry have a
    gradient: autograd skips a call all of whose gradients are absent."""
    given = dict(zip((*r.d_new_states, *r.d_ys), (*leaves_used, *y_used), strict=True))
    gradients = {*given}  # and the values computed from them
    absent = {i for i, used in given.items() if not used}
    for call in r.calls[r.n_forward :]:
        read = gradients.intersection(call.refs)
        if read:
            outs = [i for i in call.outs if i is not None]
            gradients.update(outs)
            absent.update(outs if read <= absent else ())
    return frozenset(absent)


# ---- sums over the batch that a step returns

# For each call that is linear in such sums: which of its first two arguments may be such a sum.
_FIRST, _SECOND, _BOTH = (True, False), (False, True), (True, True)
_LINEAR = dict.fromkeys(
    ("alias", "clone", "detach", "div", "neg", "squeeze", "unsqueeze", "view"), (_FIRST,)
) | {"add": (_BOTH,), "mul": (_FIRST, _SECOND), "sub": (_BOTH,)}
# A mean plus a constant is linear, too: each row adds the constant, and there are B rows.
_LINEAR_IN_MEANS = _LINEAR | dict.fromkeys(("add", "sub"), (_FIRST, _SECOND, _BOTH))


# Calls that take the shape of such a sum, and not its value.
_OF_SHAPE = {"full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"}


class _ForwardValues(Values):
    """The values of a forward pass, which may return sums over the batch.

    Attributes:
        divisors: the sums over the batch that divide another one.
    """

    divisors: frozenset[int] = frozenset()

    def translate(self, call: Call) -> None:
        read = [self.known[i] for i in call.refs]
        powers = {v.power for v in read if v.power is not None}
        if name_of(call) in _OF_SHAPE:  # as the first cotangent of torch.autograd.grad
            return super().translate(call)
        divided = _without_batch_size(call, allowed=bool(powers))
        if powers:
            self._of_sums(divided, read, powers, -1 if divided is not call else 0)
        elif not self._is_sum(call, read):
            super().translate(call)

    def _is_sum(self, call: Call, read: list[Value]) -> bool:
        """Translate the call if it is a sum or mean over the batch; return whether it is."""
        name, out = name_of(call), call.outs[0]
        if name not in ("sum", "mean") or not read[0].rows or out is None:
            return False
        a = read[0]
        axes = axes_of(a, call.args[1] if len(call.args) > 1 else None)
        batch = batch_axis(a.shape)
        if batch is None or batch not in axes or a.shape[batch] != Batch(1):
            return False
        rows = self.b.widen(a.node, a.width)
        node = reduced(self.b, name, rows, a.shape, [i for i in axes if i != batch])
        power = -1 if name == "mean" else 0
        self.known[out] = Value(node, self.recording.shapes[out], power=power)
        return True

    def _of_sums(self, call: Call, read: list[Value], powers: set[int], more: int) -> None:
        """Translate a call that reads sums over the batch: a linear function, or a quotient.

        Args:
            powers: of the sums. The power of the result is higher by `more`.
        """
        out = call.outs[0]
        of_sums = tuple([self._is_of_sum(a) for a in (*call.args, None)[:2]])
        if self._is_quotient(call, powers, of_sums):
            return
        if QUOTIENT in powers:
            raise Unsupported(
                "the step computes with a mean over the rows that are not ignored: return it "
                "as it is, or take reduction='none' and the mean of that",
                call.name,
            )
        linear = (_LINEAR_IN_MEANS if powers == {-1} else _LINEAR).get(name_of(call), ())
        constant = all(v.node.op == "const" for v in read if v.power is None)
        rounded = call.kwargs.get("rounding_mode") is not None
        if out is None or len(powers) > 1 or of_sums not in linear or not constant or rounded:
            raise Unsupported("the step computes with a sum over the batch", call.name)
        super().translate(call)
        self.known[out] = replace(self.known[out], power=powers.pop() + more)

    def _is_of_sum(self, argument: Any) -> bool:
        return isinstance(argument, Ref) and self.known[argument.index].power is not None

    def _is_quotient(self, call: Call, powers: set[int], of_sums: tuple[bool, ...]) -> bool:
        """Translate a quotient of two scalar sums over the batch; return whether it is one."""
        out = call.outs[0]
        if name_of(call) != "div" or of_sums != _BOTH or len(call.args) != 2 or call.kwargs:
            return False
        if powers != {0} or out is None or self.recording.shapes[out] != ():
            return False
        above, below = (a.index for a in call.args)
        both = self.b.concat([self.b.widen(self.known[i].node, 1) for i in (above, below)])
        self.known[out] = Value(both, (), power=QUOTIENT)
        self.divisors |= {below}
        return True


class _BackwardValues(Values):
    """The values of a backward pass: all rows have the same gradient of a sum over the batch."""

    def __init__(self, forward: _ForwardValues, has_sums: bool):
        super().__init__(forward.recording, forward.dtype, forward.b, dict(forward.known))
        self._divisors, self._has_sums = forward.divisors, has_sums

    def translate(self, call: Call) -> None:
        divided = _without_batch_size(call, allowed=self._has_sums)
        if not self._is_by_divisor(call):
            super().translate(divided)

    def _is_by_divisor(self, call: Call) -> bool:
        """Translate the division of a gradient by the divisor of a quotient.

        The caller gives that gradient already divided. Returns whether the call is such a division.
        """
        read = {i for i in call.refs if self.known[i].power is not None}
        if not read:
            return False
        by = call.args[1] if name_of(call) == "div" else None
        if not (isinstance(by, Ref) and read == {by.index} <= self._divisors):
            raise Unsupported("a gradient is computed with a sum over the batch", call.name)
        self.known[call.outs[0]] = self.known[call.args[0].index]  # type: ignore[index]
        return True


def _without_batch_size(call: Call, allowed: bool) -> Call:
    """The call without a division by the batch size, which is left to the caller that adds rows."""
    if "div" not in call.name or not any(isinstance(a, Batch) for a in call.args):
        return call
    a, by = call.args
    if not allowed or not isinstance(by, Batch) or name_of(call) != "div" or call.kwargs:
        raise Unsupported("the step computes with the batch size", call.name)
    return replace(call, args=(a, float(by.times)))
