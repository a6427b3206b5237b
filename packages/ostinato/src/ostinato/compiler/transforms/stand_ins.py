"""Finding the recording of a call under transforms of torch.func.

A transform wraps the tensors of a call: one row of many (`vmap`), or with a gradient or tangent of
its own level. The step is found, or recorded, outside of all transforms, with a plain tensor in
place of each wrapped one. The scan of the recording is then applied to the tensors as given, as a
function that has a rule for each transform (`functions.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler import torch_private
from ostinato.compiler.capture import wrapped
from ostinato.compiler.errors import Elsewhere, Unsupported
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.torch_compat import OwnMode
from ostinato.compiler.transforms.functions import scanned
from ostinato.eager import RowSpans

if TYPE_CHECKING:
    from ostinato.arguments import Arguments


class StandIns:
    """Plain tensors in place of those that transforms have wrapped, for one call of scan.

    Attributes:
        unread: ids of tensors whose values the step may not read: they are not those of a row.
    """

    def __init__(self) -> None:
        self._plain: dict[int, tuple[Tensor, Tensor]] = {}  # id of a wrapped tensor → both
        self._given: dict[int, Tensor] = {}  # id of a stand-in → the wrapped tensor
        self.unread: set[int] = set()
        self.level = wrapped.depth()
        kinds = wrapped.kinds()
        self.is_mapped = wrapped.TransformType.Vmap in kinds
        if wrapped.TransformType.Functionalize in kinds:
            raise Elsewhere("torch.func.functionalize is active, which sees every operation")
        if torch_private.forward_mode_is_active() and wrapped.TransformType.Jvp not in kinds:
            # The step's jvp is recorded by torch.func.jvp, which cannot begin within this mode.
            raise Elsewhere("forward-mode differentiation is active, not by torch.func.jvp")
        if torch.is_inference_mode_enabled() and wrapped.TransformType.Grad in kinds:
            raise Elsewhere("gradients are taken by torch.func in inference mode")

    def plain(self, t: Any) -> Any:
        return self.all_plain([t])[0]

    def all_plain(self, tensors: Sequence[Any]) -> list[Any]:
        """The stand-ins for tensors; other values, and tensors not wrapped, are themselves.

        Raises:
            Unsupported: a tensor is of a transform that has ended.
        """
        new = {
            id(t): t
            for t in tensors
            if isinstance(t, Tensor) and id(t) not in self._plain and wrapped.is_wrapped(t)
        }
        if new:
            made = wrapped.plain([*new.values()], self.level)
            self._plain.update(zip(new, zip(new.values(), made, strict=True), strict=True))
            self._given.update((id(m), t) for m, t in zip(made, new.values(), strict=True))
            self.unread.update(map(id, made))
        return [self._plain[id(t)][1] if id(t) in self._plain else t for t in tensors]

    def all_given(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The wrapped tensors in place of their stand-ins."""
        return [self._given.get(id(t), t) for t in tensors]

    def found(self, a: Arguments, find: Callable[[Arguments], Any]) -> ScanCall | Unsupported:
        """The recorded step of a call, or the refusal; `find` finds it outside of transforms."""
        plain = self._plain_arguments(a)
        with wrapped.outside():
            call = find(plain)
        if isinstance(call, Unsupported):
            return call
        if call.compiled.planner.recording.runs_python_backward:
            return Elsewhere("the step has a backward pass in Python, under torch.func")
        if call.drawn is not None and self.is_mapped:
            return Elsewhere("the step draws random numbers under torch.func.vmap")
        return replace(
            call,
            arguments=a,
            taken=self.all_given(call.taken),
            applied=scanned,
            captured=self.all_given(call.captured),
            per_row=self.all_given(call.per_row),
        )

    def _plain_arguments(self, a: Arguments) -> Arguments:
        """The call on plain tensors, of a step that finds them where wrapped ones are."""
        step = a.step

        def plainly(carry: Any, x: Any) -> Any:
            with _InPlace(self, (carry, x)):
                return step(carry, x)

        self.all_plain([*a.leaves, *a.xs_leaves, *(a.weights or ())])  # at once: it takes a third
        ragged = RowSpans(self.plain(a.ragged.lengths), None, [], a.ragged.n_steps)
        weights = None if a.weights is None else self.all_plain(a.weights)
        return a._replace(
            step=plainly,
            leaves=self.all_plain(a.leaves),
            ragged=ragged,
            weights=weights,
            xs_leaves=self.all_plain(a.xs_leaves),
        )


class _InPlace(OwnMode):
    """Hands functions of torch the stand-in of each wrapped tensor.

    A transform within this context, by which a step without a batch is recorded, has wrappers of
    its own, of the same levels: around the arguments of the step, and what is computed from them.
    These are never those of the call.
    """

    def __init__(self, stand_ins: StandIns, arguments: Any):
        super().__init__()
        self.stand_ins, self.level = stand_ins, wrapped.depth()
        self.own: dict[int, Tensor] = {}
        self._add_own(arguments)

    def _add_own(self, found: Any) -> None:
        if self.level:
            own = [t for t in tree.leaves(found) if isinstance(t, Tensor) and wrapped.is_wrapped(t)]
            self.own.update({id(t): t for t in own})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.left:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree.mapped(self._plain, (args, kwargs or {}))
        out = func(*args, **kwargs)
        self._add_own(out)
        return out

    def _plain(self, leaf: Any) -> Any:
        if id(leaf) in self.own or not isinstance(leaf, Tensor):
            return leaf
        if wrapped.is_active(self.level) and wrapped.is_wrapped(leaf):
            raise Elsewhere("the step has a transform of its own, within another transform")
        return self.stand_ins.plain(leaf)
