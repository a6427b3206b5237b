"""accelerate and restore change the class of a model's recurrent layers, and nothing else.

A layer of `ostinato.nn` has the same attributes as torch.nn's layer, so setting `__class__` turns
one into the other. Parameters, hooks, training mode, sharing and identity stay, and an optimizer
made before still works. A subclass of torch's layer that leaves the computation to
`super().forward` gets a class that inherits from it and then from ours, so that its `super()` is
our layer.
"""

from __future__ import annotations

import functools
import logging
import types
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.nn.modules.rnn import RNNBase, RNNCellBase
from torch.nn.utils import parametrize

from ostinato.loops.explained import LoopReport, OtherLoops, reports
from ostinato.loops.modules import callers_of, leave_loops, take_loops
from ostinato.nn.cells import GRUCell, LSTMCell, RNNCell
from ostinato.nn.layers import GRU, LSTM, RNN
from ostinato.nn.verify import Verification

Model = TypeVar("Model", bound=torch.nn.Module)

_log = logging.getLogger("ostinato")

_TORCH: dict[type, type] = {  # ours → torch's
    ours: ours.torch_class for ours in (RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell)
}
_CELLS = {ours.torch_class for ours in (RNNCell, GRUCell, LSTMCell)}
_OURS: dict[type, type] = {  # of those that are swapped
    theirs: ours for ours, theirs in _TORCH.items() if theirs not in _CELLS
}
# The methods that a subclass may define and still compute the results of torch's layer.
_HARMLESS = {
    "__abstractmethods__", "__annotate_func__", "__annotations__", "__annotations_cache__",
    "__dict__", "__doc__", "__firstlineno__", "__init__", "__module__", "__repr__", "__slots__",
    "__static_attributes__", "__weakref__", "extra_repr", "forward", "reset_parameters",
}  # fmt: skip
_NAMES = {theirs.__name__ for theirs in _TORCH.values()}
_MARK = "_swapped_by_accelerate"  # in the layer's __dict__, so that copies have it, too


@dataclass(frozen=True)
class LayerReport:
    """The state of one recurrent layer of a model.

    Attributes:
        name: the layer's name within the model; "" for the model itself.
        type: the name of its class, "LSTM" for instance.
        accelerated: whether it is a layer of ostinato.
        reason: why accelerate leaves it alone, or has not swapped it; "" if it is accelerated.
    """

    name: str
    type: str
    accelerated: bool
    reason: str

    def __str__(self) -> str:
        state = "accelerated" if self.accelerated else f"left alone: {self.reason}"
        return f"{self.name or 'the model itself'} ({self.type}): {state}"


def accelerate(
    model: Model,
    verify: tuple[Any, ...] | None = None,
    *,
    loops: bool = False,
    tolerance: float | None = None,
) -> Model:
    """Turn every torch.nn.RNN, GRU and LSTM in a model into ostinato's, in place.

    Only the class of the layers changes. Parameters, hooks, parametrizations, training mode, shared
    layers and the identity of every object stay, so that an optimizer made before still works.
    A layer that cannot be swapped exactly is left alone, and so is a cell, whose single steps would
    gain nothing; a warning of the logger "ostinato" says why, or that there is no layer.
    `print(*inspect(model), sep="\\n")` lists all layers.

    Args:
        model: any module; it may itself be a recurrent layer.
        verify: a tuple of inputs. The model runs on them before and after the swap, in eval mode,
            without gradients and from the same random state, and the results are compared.
        loops: run the loops over time in the model's own code by `scan`, too: in the methods of
            all modules, and in the functions that they call (docs/loops.md).
        tolerance: the largest absolute difference that verify accepts; by default the bound
            derived in `ostinato.nn.verify`.

    Returns:
        The same model.

    Raises:
        TypeError: model is not a module, or verify is not a tuple.
        ValueError: verify found a larger difference; the model is restored.

    Example:
        >>> import torch, ostinato
        >>> model = torch.nn.Sequential(torch.nn.LSTM(8, 16, batch_first=True))
        >>> model = ostinato.nn.accelerate(model, verify=(torch.randn(2, 5, 8),))
        >>> model
        Sequential(
          (0): LSTM(8, 16, batch_first=True)
        )
        >>> print(*ostinato.nn.inspect(model))
        0 (LSTM): accelerated
    """
    _check_model("accelerate", model)
    layers = _recurrent(model)
    candidates = {name: m for name, m in layers if not _is_accelerated(m)}
    reasons = {name: _reason_against(module) for name, module in candidates.items()}
    chosen = [module for name, module in candidates.items() if not reasons[name]]
    verification = None if verify is None else Verification(model, verify, chosen)
    for module in chosen:
        _swap(module)
    has_loops = loops and bool(take_loops(model).redirects)
    if verification is not None:
        try:
            verification.compare(tolerance)
        except BaseException:
            for module in chosen:
                _swap_back(module)
            if loops:
                leave_loops(model)
            raise
    for name, module in candidates.items():
        is_in_a_loop = loops and _plain_class(module) in _CELLS  # the loop is reported
        if reasons[name] and not is_in_a_loop:
            _log.warning("accelerate: %s", _report(name, module))
        else:
            _log.info("accelerate: %s", _report(name, module))
    if not layers and not has_loops:
        _log.warning(
            "accelerate: %s has no recurrent layer of torch.nn%s; a step function of yours can be "
            "given to ostinato.scan",
            type(model).__name__,
            " and calls no function with a loop"
            if loops
            else "; loops=True also looks for loops over time in its code",
        )
    return model


def restore(model: Model) -> Model:
    """Undo `accelerate` in place: the layers that it swapped get torch's class again.

    Layers that were built as ostinato's keep their class.

    Returns:
        The same model.

    Raises:
        TypeError: model is not a module.

    Example:
        >>> import torch, ostinato
        >>> gru = torch.nn.GRU(8, 16)
        >>> type(ostinato.nn.restore(ostinato.nn.accelerate(gru))) is torch.nn.GRU
        True
    """
    _check_model("restore", model)
    for name, module in _recurrent(model):
        if _MARK in vars(module) and _is_accelerated(module):
            _swap_back(module)
            _log.info("restore: %s", _report(name, module))
    leave_loops(model)
    return model


def inspect(model: torch.nn.Module) -> list[LayerReport | LoopReport | OtherLoops]:
    """List the recurrent layers of a model: accelerated, or left alone and why.

    After `accelerate(model, loops=True)` the loops over tensors that have run follow: native, with
    the times of iterations, or in Python and why; and a count of the others.

    Raises:
        TypeError: model is not a module.

    Example:
        >>> import torch, ostinato
        >>> model = torch.nn.Sequential(torch.nn.GRU(4, 8))
        >>> [report.accelerated for report in ostinato.nn.inspect(model)]
        [False]
        >>> [report.accelerated for report in ostinato.nn.inspect(ostinato.accelerate(model))]
        [True]
    """
    _check_model("inspect", model)
    layers = [_report(name, module) for name, module in _recurrent(model)]
    return [*layers, *reports(callers_of(model))]


def _recurrent(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Every recurrent layer once, under its first name, subclasses and look-alikes included."""
    return [(name, m) for name, m in model.named_modules() if _is_recurrent(m)]


def _is_recurrent(module: torch.nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        parameters = [name for name, _ in module.named_parameters(recurse=False)]
        return module.original_name in _NAMES and any("weight_hh" in name for name in parameters)
    named_so = type(module).__module__.startswith("torch.") and type(module).__name__ in _NAMES
    return named_so or isinstance(module, (RNNBase, RNNCellBase))


def _plain_class(module: torch.nn.Module) -> type:
    """The module's class as if it had no parametrization (which gives it a class of its own)."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def _is_accelerated(module: torch.nn.Module) -> bool:
    return isinstance(module, tuple(_TORCH))


def _reason_against(module: torch.nn.Module) -> str:
    """Why a layer must be left alone; "" if it can be swapped."""
    plain = _plain_class(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "it is compiled by TorchScript, its code is fixed"
    if plain in _CELLS:
        return f"one step a call gains nothing; ostinato.nn.{plain.__name__} has a step for scan"
    if _ours_for(plain) is None:
        kind = f"{plain.__module__}.{plain.__qualname__}"
        if isinstance(module, (RNNBase, RNNCellBase)):
            return f"it is a subclass of torch's, {kind}, which may compute something else"
        return f"it is not torch.nn's, but {kind}"
    if "forward" in vars(module):
        return "its forward was replaced on the object"
    if any(parameter.is_meta for parameter in module.parameters()):
        return "its parameters are on the meta device, without values; load them first"
    return ""


def _swap(module: torch.nn.Module) -> None:
    ours = _ours_for(_plain_class(module))
    assert ours is not None  # no reason is against it
    _change_class(module, ours)
    vars(module)[_MARK] = True


def _swap_back(module: torch.nn.Module) -> None:
    plain = _plain_class(module)
    _change_class(module, _TORCH.get(plain, plain.__bases__[0]))
    del vars(module)[_MARK]


@functools.lru_cache(256)
def _ours_for(plain: type) -> type | None:
    """Our class for a layer of torch's class, or of a subclass that only adds to it."""
    base = next((theirs for theirs in _OURS if issubclass(plain, theirs)), None)
    if base is None or plain is base:
        return _OURS.get(plain)
    if not _only_adds(plain, base):
        return None

    def reduce(self: Any, protocol: Any) -> Any:  # pickle finds classes by their names
        return _made_from, (plain,), *object.__reduce_ex__(self, protocol)[2:]

    own = {"__module__": plain.__module__, "__doc__": plain.__doc__, "__reduce_ex__": reduce}
    return type(plain.__name__, (plain, _OURS[base]), own)


def _made_from(plain: type) -> Any:
    ours: Any = _ours_for(plain)
    return ours.__new__(ours)


def _only_adds(plain: type, base: type) -> bool:
    """Whether a subclass overrides nothing that its layer computes with but `forward`, which calls
    that of `super()`."""
    own = [cls for cls in plain.__mro__ if not issubclass(base, cls)]
    names = {name for cls in own for name in vars(cls)}
    if names & {*dir(base)} - _HARMLESS:
        return False
    forwards = [vars(cls)["forward"] for cls in own if "forward" in vars(cls)]
    return all(
        isinstance(f, types.FunctionType) and {"super", "forward"} <= {*f.__code__.co_names}
        for f in forwards
    )


def _change_class(module: torch.nn.Module, wanted: type) -> None:
    old = type(module)
    if parametrize.is_parametrized(module):  # copy the class of this module onto the new base
        own = {k: v for k, v in vars(old).items() if k not in ("__dict__", "__weakref__")}
        wanted = type(old.__name__, (wanted,), own)
    module.__class__ = wanted


def _report(name: str, module: torch.nn.Module) -> LayerReport:
    kind = getattr(module, "original_name", _plain_class(module).__name__)
    if _is_accelerated(module):
        return LayerReport(name, kind, True, "")
    return LayerReport(name, kind, False, _reason_against(module) or "accelerate was not called")


def _check_model(caller: str, model: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"{caller}: got a {type(model).__name__}; wanted a torch.nn.Module")
