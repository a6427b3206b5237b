"""The compiler's uses of PyTorch's less common interfaces.

There are two subjects: torch.compile, in which a call of scan is a clean graph break; and the modes
that are active around a call, so that extra runs of a step go unnoticed.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from ostinato import tree
from ostinato.compiler import torch_private
from ostinato.compiler.lock import one_at_a_time
from ostinato.engine import native

# The decorator torch.compiler.disable imports torch._dynamo, which takes a second. So functions are
# marked by `out_of_graph`: newer versions of PyTorch then trace neither them nor their callees. On
# older versions, a call that dynamo would trace (`looks_on`) goes through `disabled`.

# PyTorch 2.6 returns dynamo's frame function without a reference: it would be freed after some
# hundred calls, and Python would crash. 2.9 does not; versions between were not tried, and one more
# reference is harmless.
_LENDS = str(torch.__version__).startswith(("2.6.", "2.7.", "2.8."))


def looks_on() -> bool:
    """Whether torch.compile would trace functions that are called now, as far as known."""
    if torch.compiler.is_dynamo_compiling():  # what follows would make dynamo warn
        return True
    callback = torch_private.frame_callback()
    if _LENDS and callback is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(callback))
    return callback is not None


def disabled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under torch.compiler.disable, which imports torch._dynamo."""
    return torch.compiler.disable(function)


class _Stance:
    """The stance of torch.compile, which PyTorch has once for all threads.

    The first thread that runs a step sets "force_eager", and the last one restores the stance.
    """

    threads = 0
    current: Any = None


@contextmanager
def _as_written() -> Iterator[None]:
    """A context in which functions made by torch.compile run as they were written."""
    with one_at_a_time:
        if not _Stance.threads:
            _Stance.current = torch.compiler.set_stance("force_eager")
        _Stance.threads += 1
    try:
        yield
    finally:
        with one_at_a_time:
            _Stance.threads -= 1
            if not _Stance.threads:
                _Stance.current.__exit__(None, None, None)


def source_of(function: Any) -> Any:
    """The function that was given to torch.compile; `function` itself if it was not compiled."""
    source = vars(function).get("_torchdynamo_orig_callable")
    return function if source is None else source


def out_of_graph(function: Any) -> Any:
    """Mark a function as a graph break of torch.compile."""
    function._torchdynamo_disable = True
    return own_frame(function)


def own_frame(function: Any) -> Any:
    """Mark a function so that, called outside of a graph, neither it nor its callees are traced."""
    private = torch_private
    if None not in (private.set_code_exec_strategy, private.FrameExecStrategy, private.FrameAction):
        skip = private.FrameAction.SKIP
        private.set_code_exec_strategy(function.__code__, private.FrameExecStrategy(skip, skip))
    return function


def in_transforms() -> str | None:
    """The transform of torch.func, or mode of differentiation, that is active; or None."""
    if torch_private.are_transforms_active():
        return "a torch.func transform is active"
    if torch_private.forward_mode_is_active():
        return "forward-mode differentiation is active"
    return None


def seen_by_others() -> str | None:
    """Why the Python loop has to run: a mode that must see every operation is active; or None."""
    mode = torch_private.current_function_mode()
    if isinstance(mode, OwnMode) and mode.left:
        torch_private.pop_function_mode()
        return seen_by_others()
    if is_recorded():
        return "another mode is recording operations"
    if torch_private.is_tracing():
        return "the call is being traced"
    if torch_private.count_function_modes() > 0 and default_devices() is None:
        return "a mode that overrides torch's functions is active"
    return None


def transformed() -> str | None:
    """Why a call is not a usual one, by its modes; or None."""
    return None if native.modes() is not None else in_transforms() or seen_by_others()


def refuses_checkpoints() -> bool:
    """Whether torch.utils.checkpoint would raise, as under torch.func.grad: it hangs hooks."""
    return not torch_private.hooks_are_allowed()


def default_devices() -> tuple[torch.device, ...] | None:
    """The devices of active `with torch.device` and set_default_device, outermost first.

    They decide where a step makes new tensors. None if another mode that overrides functions is
    active.
    """
    modes = torch_private.function_modes()
    if not all(isinstance(mode, torch_private.DeviceContext) for mode in modes):
        return None
    return tuple([mode.device for mode in modes])


def is_recorded() -> bool:
    """Whether operations are being recorded, for instance those of a step.

    A scan within the step then plays the loop, which shows them.
    """
    modes = torch_private.function_modes()
    ours = any(isinstance(mode, OwnMode) and not mode.left for mode in modes)
    return ours or torch_private.count_dispatch_modes() > 0


class OwnMode(TorchFunctionMode):
    """A mode that sees torch's functions while it is entered, and never afterwards.

    PyTorch takes a mode off its stack while the mode handles a function. If an interrupt comes at
    that moment, a generator in the traceback still holds the mode, and puts it back on the stack
    when the traceback is freed. `left` says that such a mode must be ignored.
    """

    left = False

    def __exit__(self, *error: object) -> None:
        self.left = True
        if torch_private.current_function_mode() is self:
            torch_private.pop_function_mode()


@contextmanager
def among_ours() -> Iterator[None]:
    """A context in which a step runs under our modes, and its compiled parts run as written.

    Afterwards PyTorch's stacks of modes are as before. Without this, a mode that is entered or left
    while an interrupt comes would stay active and see all later operations.
    """
    functions, dispatches = (
        torch_private.count_function_modes(),
        torch_private.count_dispatch_modes(),
    )
    try:
        with _as_written() if "torch._dynamo" in sys.modules else nullcontext():
            yield
    finally:
        while torch_private.count_function_modes() > functions:
            torch_private.pop_function_mode()
        while torch_private.count_dispatch_modes() > dispatches:
            torch_private.pop_dispatch_mode()


def _same(t: Tensor) -> Tensor:
    return t


@contextmanager
def undisturbed(pack: Callable[[Tensor], Tensor] = _same) -> Iterator[None]:
    """A context for extra calls of a step, which must go unnoticed.

    The user's hooks on saved tensors (checkpointing) see no tensor of these calls.
    `torch.nn.utils.parametrize.cached` caches nothing. Inference mode is off, so that a recording
    made under it can be differentiated later.

    Args:
        pack: maps each tensor that autograd saves to the tensor to be saved; called only where the
            user has such hooks, or where PyTorch cannot say.
    """
    cached, parametrize._cache_enabled = parametrize._cache_enabled, 0
    try:
        with ExitStack() as stack:
            if torch.is_anomaly_enabled():  # it looks at values, and at Python's stack
                stack.enter_context(torch.autograd.set_detect_anomaly(False))
            if torch.is_inference_mode_enabled():
                mode = torch.is_grad_enabled()
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.set_grad_enabled(mode))
            if torch_private.top_hooks(False) is not None:
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, _same))
            yield
    finally:
        parametrize._cache_enabled = cached


# ---- the state of PyTorch's random generator

# torch.get_rng_state holds the generator's mutex while it makes a tensor. A garbage collection then
# may run Python and hand the interpreter to a thread that keeps it while it waits for the mutex.
# The lock lets a second thread of ours wait without the interpreter.


def random_state() -> Tensor:
    """The state of PyTorch's generator of the CPU."""
    with one_at_a_time:
        return torch.get_rng_state()


def set_random_state(state: Tensor) -> None:
    """Put a state of PyTorch's generator of the CPU back."""
    with one_at_a_time:
        torch.set_rng_state(state)


# ---- gradients


def gradients_of(
    outputs: list[tuple[Tensor, Tensor]], inputs: list[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients of outputs, each with its cotangent, as of torch.autograd.grad.

    That function imports SymPy first: 0.2 s, and twice that while the recorded run is observed.
    """
    of, cotangents = zip(*outputs, strict=True)
    engine = torch_private.execution_engine
    gradients: tuple[Tensor | None, ...] = engine.run_backward(
        of, cotangents, False, False, tuple(inputs), allow_unreachable=True, accumulate_grad=False
    )
    return gradients


# ---- what PyTorch's compilers put in place of an operation


def composition(name: str, overload: str) -> Callable[..., Any] | None:
    """PyTorch's composition of an operation of ATen; None if this version has none.

    Its decorators, which promote types, import SymPy and torch._dynamo first: 1.5 s. Where all
    tensors are of one type, there is nothing to promote.
    """
    found = torch_private.decompositions.get(_overload(torch.ops.aten, name, overload))
    return None if found is None else functools.partial(_composed, found)


def _composed(composition: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    types = {leaf.dtype for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)}
    of_one = types == {torch.float32} or types == {torch.float64}
    return (inspect.unwrap(composition) if of_one else composition)(*args, **kwargs)


def meaning_of_prim(name: str) -> Callable[..., Any]:
    """What an operation that such compositions consist of does, in calls of ATen."""
    meaning: Callable[..., Any] = _overload(torch.ops.prims, name, "default").impl_aten
    return meaning


def _overload(operations: Any, name: str, overload: str) -> Any:
    return getattr(getattr(operations, name), overload)
