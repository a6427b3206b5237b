"""scan inside what PyTorch users build around it, and beside what runs at the same time."""

from __future__ import annotations

import contextvars
import copy
import cProfile
import io
import pstats
import subprocess
import sys
import textwrap
import types
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import ostinato
from ostinato import scan
from ostinato.compiler.torch_compat import OwnMode
from zoo.playing import counting, loop, rows_apart
from zoo.small import (
    B,
    Cell,
    D,
    H,
    Net,
    T,
    assert_same,
    both,
    gradients,
    inputs,
    leaf,
    module,
    rnn,
    weight,
)
from zoo.suites import TORCH

pytestmark = pytest.mark.filterwarnings("ignore:.*slow Python loop", "ignore:.*was recorded")


def net_and_loop() -> tuple[Net, Net]:
    net, other = (Net(how, module(ostinato.nn.GRU, H, H)) for how in (scan, loop))
    other.load_state_dict(net.state_dict())
    return net, other


def grads_of(model: nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


# ------------------------------------------------------------------------------ around a scan


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    """Around scan or within a step: in float32 all the same, and no state is left over."""
    W, init, xs = inputs(torch.float32)
    step = lambda h, x: torch.tanh(x + h @ W).float()  # noqa: E731

    def inside(h: Tensor, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return step(h, x)

    exact = gradients(loop, step, [W, init], init, xs)
    assert (loop(inside, init, xs)[1] - exact[1]).abs().max() > 1e-4  # it makes a difference here
    for around in (dtype, None, torch.float16, torch.bfloat16) * 2:
        for played in (step, inside):
            with torch.autocast("cpu", around, enabled=around is not None):
                ours = gradients(scan, played, [W, init], init, xs)
            assert_same(ours, exact, 1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant):
    """The first call of a step as well as later ones."""
    W, init, xs = inputs()
    step = rnn(W)
    found = []
    for how in (loop, scan, scan):
        W.grad = init.grad = xs.grad = None

        def part(init: Tensor, xs: Tensor, how: Any = how) -> Any:
            return how(step, init, xs * 2)

        carry, ys = checkpoint(part, init, xs, use_reentrant=reentrant)
        (ys.square().sum() + carry.sum()).backward()
        found.append([t.grad.clone() for t in (W, init, xs)])
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


def test_checkpoint_inside_a_step():
    W, init, xs = inputs()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return checkpoint(lambda h, x: torch.tanh(x + h @ W), h, x, use_reentrant=False)

    both(lambda how: gradients(how, step, [W, init, xs], init, xs))
    if TORCH >= (2, 13):  # older ones show the step's history, and the loop plays
        assert ostinato.explain(step, init, xs).native  # the second run is recorded, too


def test_saved_tensors_hooks_are_the_users():
    """Recording saves nothing through the user's hooks, and what is saved may move."""
    W, init, xs = inputs()
    step = rnn(W)
    packed = []
    for _ in range(2):
        packed.append(0)

        def pack(t: Tensor) -> Tensor:
            packed[-1] += 1
            return t.clone()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            ours = gradients(scan, step, [W, init, xs], init, xs)
        assert_same(ours, gradients(loop, step, [W, init, xs], init, xs))
    assert packed[0] == packed[1]
    with torch.autograd.graph.save_on_cpu():
        assert_same(gradients(scan, step, [W, init, xs], init, xs), ours)


@pytest.mark.filterwarnings("ignore:Anomaly", "ignore:Error detected")
def test_anomaly_detection():
    W, init, xs = inputs()
    step = rnn(W)
    with torch.autograd.detect_anomaly():
        both(lambda how: gradients(how, step, [W, init, xs], init, xs))
    with counting(step) as calls:  # the recording stays valid
        gradients(scan, step, [W, init, xs], init, xs)
    assert calls[0] == 0
    with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="nan"):
        scan(step, init, xs)[1].sqrt().sum().backward()


def test_distributed_data_parallel():
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        net, other = net_and_loop()
        parallel = nn.parallel.DistributedDataParallel(net, find_unused_parameters=True)
        optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (net, other)]
        for _ in range(3):
            _, init, xs = inputs()
            for model in (parallel, other):
                model.zero_grad()
                model(init, xs).square().sum().backward()
            assert_same(grads_of(net), grads_of(other))
            for optimizer in optimizers:
                optimizer.step()
        assert_same(dict(net.named_parameters()), dict(other.named_parameters()))
    finally:
        dist.destroy_process_group()


@pytest.mark.filterwarnings(  # what dynamo itself says, and reads
    "error", "ignore:Guards may run slower on Python", "ignore:The .grad attribute"
)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_inside_a_compiled_model(backend):
    torch._dynamo.reset()
    net, other = net_and_loop()
    compiled = torch.compile(net, backend=backend)
    for rows in (3, 3, 5):
        init, xs = leaf(rows, H), leaf(T, rows, H)
        found = []
        for model in (compiled, other):
            out = model(init, xs)
            wanted = [*model.parameters(), init, xs]
            grads = torch.autograd.grad(out.square().sum(), wanted, allow_unused=True)
            found.append([out, *(g for g in grads if g is not None)])
        assert_same(*found)
    torch._dynamo.reset()


@pytest.mark.slow
def test_many_calls_inside_a_compiled_model():
    """PyTorch 2.6 lost a reference at each, and crashed."""
    torch._dynamo.reset()

    @torch.compile(backend="eager")
    def many(init, xs):
        for _ in range(40):
            init, _ = ostinato.scan(lambda h, x: torch.tanh(h + x), init, xs)
        return init

    for _ in range(40):
        init = many(torch.zeros(2, 3), torch.ones(3, 2, 3))
    assert init.shape == (2, 3)
    torch._dynamo.reset()


def test_the_compiled_model_has_one_clean_break():
    """The scan is played by the engine, not traced step by step into the graph."""
    torch._dynamo.reset()
    net, _ = net_and_loop()
    compiled = torch.compile(net, backend="eager")
    init, xs = leaf(B, H), leaf(T, B, H)
    compiled(init, xs)
    with counting(net.step) as calls:
        compiled(init, xs)
    assert calls[0] <= 1
    torch._dynamo.reset()


def test_compiled_autograd():
    from torch._dynamo import compiled_autograd

    W, init, xs = inputs()
    expected = torch.autograd.grad(loop(rnn(W), init, xs)[1].square().sum(), [W, init, xs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what dynamo cannot trace
        for _ in range(2):
            for t in (W, init, xs):
                t.grad = None
            total = scan(rnn(W), init, xs)[1].square().sum()
            with compiled_autograd._enable(torch.compile(backend="eager")):
                total.backward()
            assert_same([W.grad, init.grad, xs.grad], expected)


COMPILED: dict[str, Callable[[Cell], Any]] = {
    "function": lambda cell: torch.compile(lambda h, x: cell(h, x), backend="eager"),
    "method": lambda cell: torch.compile(cell.forward, backend="eager"),
    "module": lambda cell: torch.compile(cell, backend="eager"),
    "module in place": lambda cell: cell.compile(backend="eager") or cell,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", COMPILED)
def test_a_compiled_step(kind, inside):
    """It is recorded as it is written: native, and not compiled by anybody."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    cell, (_, init, xs) = Cell(), inputs()
    compiled = COMPILED[kind](cell)
    step = (lambda h, x: compiled(h, x) / 2) if inside else compiled
    written = lambda h, x: Cell.forward(cell, h, x) / (2 if inside else 1)  # noqa: E731
    for change in (
        lambda: None,
        lambda: setattr(cell, "gain", 0.5),
        lambda: setattr(cell, "W", weight()),
    ):
        change()
        for _ in range(2):
            leaves = [cell.W, init, xs]
            wanted = gradients(loop, written, leaves, init, xs)
            assert_same(gradients(scan, step, leaves, init, xs), wanted)
    assert torch._dynamo.utils.counters["frames"] == {}
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
def test_scripted_steps():
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = weight()

        def forward(self, h: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(x + h @ self.W)

    scripted, (_, init, xs) = torch.jit.script(Scripted()), inputs()
    held = types.SimpleNamespace(act=torch.jit.script(nn.Tanh()), k=1.0)
    for step in (scripted, lambda h, x: held.act(scripted(h, x) * held.k)):
        for change in ("", "held.k = 0.5", "held.act = torch.jit.script(nn.Sigmoid())"):
            exec(change, {**globals(), "held": held})
            for _ in range(2):
                leaves = [scripted.W, init, xs]
                wanted = gradients(loop, step, leaves, init, xs)
                assert_same(gradients(scan, step, leaves, init, xs), wanted)
                with torch.no_grad():
                    scripted.W.mul_(0.5)


@pytest.mark.filterwarnings("ignore")
def test_tracing_sees_the_loop():
    """A trace must not keep the engine's results as constants."""
    from torch.fx.experimental.proxy_tensor import make_fx

    W, init, xs = (t.detach() for t in inputs())
    other = torch.randn_like(xs)

    def f(xs: Tensor) -> Tensor:
        return scan(rnn(W), init, xs)[1]

    f(xs)
    expected = loop(rnn(W), init, other)[1]
    assert_same(make_fx(f)(xs)(other), expected)
    assert_same(torch.jit.trace(f, xs, check_trace=False)(other), expected)
    net, its_loop = net_and_loop()
    exported = torch.export.export(net, (init, xs), strict=False).module()
    assert_same(exported(init, other), its_loop(init, other))


def test_modes_and_counters():
    from torch.utils.flop_counter import FlopCounterMode

    W, init, xs = inputs()
    wanted = gradients(loop, rnn(W), [W, init, xs], init, xs)
    for mode in (FlopCounterMode(display=False), torch.device("cpu")):
        with mode:
            assert_same(gradients(scan, rnn(W), [W, init, xs], init, xs), wanted)
    torch.use_deterministic_algorithms(True)
    try:
        assert_same(gradients(scan, rnn(W), [W, init, xs], init, xs), wanted)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("lengths", [None, [T, 1, 2]])
def test_a_default_device(lengths):
    """Where the user's new tensors go is not where scan's go."""
    W, init, xs = inputs()
    step = rnn(W)
    wanted = gradients(partial(rows_apart, lengths=lengths), step, [W, init, xs], init, xs)
    ours = partial(scan, lengths=lengths)
    for again in (False, True):
        with torch.device("meta"), counting(step) as calls:
            carry, ys = ours(step, init, xs)
            grads = torch.autograd.grad(ys.square().sum() + carry.square().sum(), [W, init, xs])
        assert_same((carry, ys, grads), wanted)
        assert not (again and calls[0])


def test_a_mode_that_overrides_functions():
    class SineForTanh(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return (torch.sin if func is torch.tanh else func)(*args, **(kwargs or {}))

    W, init, xs = inputs()
    step = rnn(W)
    plain = gradients(loop, step, [W, init, xs], init, xs)
    for _ in range(2):
        assert_same(gradients(scan, step, [W, init, xs], init, xs), plain)
        with SineForTanh():
            both(lambda how: gradients(how, step, [W, init, xs], init, xs))


@pytest.mark.slow
@pytest.mark.process
def test_a_mode_in_a_fresh_process():
    """Where nobody has used a default device yet."""
    script = """
        import torch
        from torch.overrides import TorchFunctionMode
        from ostinato import scan

        class Passing(TorchFunctionMode):
            def __torch_function__(self, func, types, args=(), kwargs=None):
                return func(*args, **(kwargs or {}))

        with Passing():
            scan(lambda h, x: torch.tanh(h + x), torch.zeros(2, 3), torch.zeros(4, 2, 3))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_zeros_that_torch_does_not_store():
    W, init, xs = (t.detach() for t in inputs())
    zeros = torch._efficientzerotensor  # has no memory
    for W_, init_, xs_ in (
        (zeros(W.shape, dtype=D), init, xs),
        (W, zeros(init.shape, dtype=D), xs),
        (W, init, zeros(xs.shape, dtype=D)),
    ):
        step = rnn(W_)
        assert_same(scan(step, init_, xs_), loop(step, init_, xs_))


@pytest.mark.filterwarnings("ignore:.*quantize")  # which goes, but is there
def test_tensors_of_other_kinds():
    """Subclasses, meta tensors, other dtypes and layouts take the loop."""

    class Sub(torch.Tensor):
        pass

    W, init, xs = (t.detach() for t in inputs())
    plain = loop(rnn(W), init, xs)
    for W_, init_, xs_ in (
        (W.as_subclass(Sub), init, xs),
        (W, init.as_subclass(Sub), xs),
        (W, init, xs.as_subclass(Sub)),
    ):
        ours = scan(rnn(W_), init_, xs_)
        assert type(ours[1]) is Sub
        assert_same([t.as_subclass(Tensor) for t in ours], plain)
    empty = [t.to("meta") for t in (W, init, xs)]
    ys = scan(rnn(empty[0]), empty[1], empty[2])[1]
    assert ys.device.type == "meta" and ys.shape == (T, B, H)
    for dtype in (torch.bfloat16, torch.float16, torch.complex128):
        W_, init_, xs_ = (t.to(dtype) for t in (W, init, xs))
        near = 1e-12 if dtype.is_complex else 40 * torch.finfo(dtype).eps  # the loop rounds more
        assert_same(scan(rnn(W_), init_, xs_), loop(rnn(W_), init_, xs_), near)
    sparse = torch.eye(H, dtype=D).to_sparse()
    quantized = torch.quantize_per_tensor(torch.randn(H, H), 0.1, 0, torch.qint8)
    both(lambda how: how(lambda h, x: torch.tanh(x + (sparse @ h.t()).t()), init, xs))
    both(lambda how: how(lambda h, x: x.sin() + h @ quantized.dequantize().to(D), init, xs))


@pytest.mark.parametrize("grad", [True, False])
def test_a_tensor_that_outlived_its_transform(grad):
    kept: list[Tensor] = []
    torch.func.grad(lambda w: kept.append(w) or w.sum())(weight(H, H).detach())

    def step(h, x):
        return torch.tanh(x + h @ kept[0])

    init, xs = torch.zeros(B, H, dtype=D, requires_grad=True), torch.randn(T, B, H, dtype=D)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(scan(step, init, xs), loop(step, init, xs))


def lazily_negated(t: Tensor) -> Tensor:
    """The values of t, in memory that holds −t."""
    found = torch.complex(torch.zeros_like(t), -t).conj().imag
    assert found.is_neg()
    return found


class Negating(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        return lazily_negated(d)


@pytest.mark.parametrize("rows,width", [(B, H), (B, 1), (1, 1)])  # one element wide: dense as it is
def test_tensors_and_gradients_with_a_lazy_sign(rows, width):
    """Tensors whose memory holds the opposite of their values."""
    plain = W, init, xs = leaf(width, width), leaf(rows, width), leaf(T, rows, width)

    def f(how: Any, W_: Tensor, *given: Tensor) -> Any:
        carry, ys = how(rnn(W_), *given)
        value = (Negating.apply(ys) * xs).sum() + (Negating.apply(carry) * xs[0]).sum()
        return carry, ys, torch.autograd.grad(value, (W, init, xs))

    f(scan, *plain)  # what comes now is no longer compared with the loop
    for i in range(3):
        given = [lazily_negated(t) if i == at else t for at, t in enumerate(plain)]
        assert_same(f(scan, *given), f(loop, *plain))


@pytest.mark.slow
@pytest.mark.process
def test_where_torch_lends_no_table_of_functions():
    """As earlier versions of PyTorch: where tensors lie is asked by method calls."""
    script = """
        import sys, torch
        del torch.Tensor.__dlpack_c_exchange_api__
        from ostinato import _native, scan
        dtype = _native.described([torch.ones(2)], [], [], 0)[16:24]
        assert int.from_bytes(dtype, sys.byteorder) > 2**16  # an address
        W, b = (torch.randn(*s, requires_grad=True) for s in ((5, 5), (5,)))
        init, xs = torch.randn(3, 5), torch.randn(4, 3, 5, requires_grad=True)
        weights = torch.randn(4, 3, 5)
        def step(h, x):
            return torch.tanh(x @ W.t() + h @ W + b)
        def loop():
            h, ys = init, []
            for x in xs:
                h = step(h, x)
                ys.append(h)
            return torch.stack(ys)
        for lengths in (None, [4, 0, 2]):
            ours = scan(step, init, xs, lengths=lengths)[1]
            theirs = loop() * (1 if lengths is None else
                               (torch.arange(4)[:, None] < torch.tensor(lengths))[..., None])
            both = [(ours, theirs)] + list(zip(
                *[torch.autograd.grad(y, (W, b, xs), weights) for y in (ours, theirs)]))
            for a, b_ in both:
                torch.testing.assert_close(a, b_, rtol=1e-4, atol=1e-5)
        print("played")
    """
    if not hasattr(Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this PyTorch has none: all tests are of this")
    command = [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "played\n", done.stderr[-3000:]


def test_leaves_of_the_carry_with_other_rows():
    """A leaf that has no batch, or another one, is for the loop, whenever it comes."""
    W, xs = torch.randn(H, H, dtype=D), torch.randn(T, B, H, dtype=D)

    def step(carry, x):
        h, d = carry
        return torch.tanh(x + h @ W), d * 2

    h = torch.randn(B, H, dtype=D)
    for shape in ((1, 4096), (B, 4), (2 * B, 4), (B, 4), ()):
        d = torch.randn(shape, dtype=D)
        ours, theirs = scan(step, (h, d), xs), loop(step, (h, d), xs)
        assert_same([*ours[0], *ours[1]], [*theirs[0], *theirs[1]])


def test_mixed_dtypes():
    W, init, xs = (t.detach() for t in inputs())
    for step, first, given in (
        (lambda h, x: torch.tanh(h @ W + x), init, torch.randint(0, H, (T, B, 1)).expand(T, B, H)),
        (lambda h, x: torch.tanh(h @ W + x.to(D)), init, xs.float()),
        (
            lambda c, x: (torch.tanh(c[0] @ W + x), c[1] + x.sum(1).float()),
            (init, torch.zeros(B)),
            xs,
        ),
    ):
        both(lambda how, args=(step, first, given): how(*args))


@pytest.mark.parametrize(
    ("step", "scale"),
    [
        (lambda h, x: (0.5 * h, x.bool().to(x.dtype) + h), 3),
        (lambda h, x: (0.5 * h, torch.logical_or(h, x).to(x.dtype) * 2), 3),
        (lambda h, x: (0.5 * h, torch.where(torch.logical_and(h, x), x, h + 7)), 1e-200),
        (lambda h, x: (0.5 * h, ((x > 0) + (x > 1)).to(x.dtype) + h), 3),
        (lambda h, x: (0.5 * h, torch.empty_like(x, dtype=torch.bool).copy_(x).to(x.dtype)), 3),
        (lambda h, x: (0.5 * h, torch.maximum(x > 0, h.bool()).to(x.dtype)), 3),
        (lambda h, x: (0.5 * h, (x > 0).masked_fill(h > 0, 3).to(x.dtype)), 3),
        (lambda h, x: (0.5 * h, (x.bool() & (h > 0), torch.logical_not(x))), 3),
    ],
)
def test_truth_values_of_numbers(step, scale):
    """Are 0 and 1, whatever the numbers; which at first are 0 and 1, too, and hide what is not."""
    _, init, xs = (t.detach() for t in inputs())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for a, b in ((torch.ones_like(init), torch.zeros_like(xs)), (scale * init, scale * xs)):
            assert_same(scan(step, a, b), loop(step, a, b))


class _WithoutBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return 2 * a


@pytest.mark.parametrize(
    "step",
    [
        lambda h, x: (0.5 * h + x, h // 2.0),
        lambda h, x: (0.5 * h + x, torch.heaviside(h, x)),
        lambda h, x: (0.5 * h + x, _WithoutBackward.apply(h)),
    ],
)
def test_what_has_no_gradient_is_played_where_none_is_wanted(step):
    _, init, xs = (t.detach() for t in inputs())
    with pytest.warns(UserWarning, match="cannot be differentiated"):
        ours = scan(step, init, xs)
    assert_same(ours, loop(step, init, xs))


def test_modules_copied_saved_and_moved():
    net, other = net_and_loop()
    _, init, xs = inputs()
    net(init, xs)
    twin = copy.deepcopy(net)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(-1)
    assert_same(twin(init, xs), other(init, xs))
    buffer.seek(0)
    net.load_state_dict(torch.load(buffer))
    assert_same(net(init, xs), other(init, xs))
    single, its_loop = net.float(), other.float()
    assert_same(single(init.float(), xs.float()), its_loop(init.float(), xs.float()), 1e-5)


# ------------------------------------------------------------- what a step does beside computing


def test_steps_with_the_batch_size_written_in():
    """They run at one batch size alone; recording at another must not break them."""
    W, _, _ = inputs()
    for rows in (1, 2, 3, 4, 5):
        mask = leaf(rows, H)
        init, xs = leaf(rows, H), leaf(T, rows, H)
        steps = [
            lambda h, x, mask=mask: torch.tanh(x + (h * mask) @ W),
            lambda h, x, rows=rows: torch.tanh(x.view(rows, 2, 2).reshape(rows, 4) + h @ W),
            lambda h, x, rows=rows: torch.tanh(x + h @ W) + torch.ones(rows, 1, dtype=D),
        ]
        for step in steps:
            both(lambda how, s=step, h=init, xs=xs: gradients(how, s, [W, h, xs], h, xs))


# A step of a weight and an empty one, the shape of xs, and a word of what the engine cannot play.
FOR_THE_LOOP: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "empty and captured": (
        lambda W, e: lambda h, x: torch.tanh(x + h @ W + (h @ e) @ e.t()), (T, B, H), "empty"),
    "empty within": (
        lambda W, e: lambda h, x: torch.tanh(x + h @ W + h[:, :0].sum(1, keepdim=True)), (T, B, H),
        "empty"),
    "empty output": (
        lambda W, e: lambda h, x: (torch.tanh(x + h @ W), h[:, :0]), (T, B, H), "empty"),
    "empty input": (
        lambda W, e: lambda h, x: torch.tanh(h @ W + x.sum(1, keepdim=True)), (T, B, 0), "empty"),
    "features by their number": (
        lambda W, e: lambda h, x: h + x[0] * torch.tanh(h @ W + x[1]), (T, 2), "batch"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOR_THE_LOOP)
def test_what_is_for_the_loop(name):
    """And a word about it."""
    make, shape, message = FOR_THE_LOOP[name]
    step, init, xs = make(weight(), leaf(H, 0)), leaf(B, H), leaf(*shape)
    with pytest.warns(UserWarning, match=f"slow Python loop.*{message}"):
        ours = gradients(scan, step, [init, xs], init, xs)
    assert_same(ours, gradients(loop, step, [init, xs], init, xs))


@pytest.mark.parametrize("method", ["__enter__", "__exit__"])
@pytest.mark.parametrize("kind", [TorchDispatchMode, OwnMode])
def test_an_interrupt_while_a_mode_is_entered_or_left(kind, method, monkeypatch):
    """Nothing of it stays: neither where torch draws numbers nor where scan is called again."""
    W, init, xs = inputs()
    new = sum(map(ord, f"{kind.__name__}{method}"))  # a step that is not yet recorded
    step = lambda h, x: torch.tanh(h @ W + x / new)  # noqa: E731
    whole, times = getattr(kind, method), []

    def interrupted(self, *args):
        result = whole(self, *args) if method == "__enter__" else None
        times.append(1)
        if len(times) == 1:
            raise KeyboardInterrupt
        return whole(self, *args) if method == "__exit__" else result

    with monkeypatch.context() as patch:
        patch.setattr(kind, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            scan(step, init, xs)
    assert torch.randn(3).shape == (3,)
    assert torch._C._len_torch_function_stack() == torch._C._len_torch_dispatch_stack() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(scan(step, init, xs), loop(step, init, xs))


def test_an_interrupt_while_torch_calls_one_of_its_functions():
    """It then holds the mode in a generator, and puts it back when the traceback is forgotten."""
    W, init, xs = inputs()
    held = contextvars.ContextVar("held", default=None)  # no container that scan would restore

    def interrupted(h: Tensor, x: Tensor) -> Tensor:
        held.set(torch.overrides._pop_mode_temporarily())
        held.get().__enter__()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(interrupted, init, xs)
    assert torch._C._len_torch_function_stack() == 0
    held.set(None)
    assert torch._C._len_torch_function_stack() == 1
    W[:, 0].relu().sum().item()  # what a step must not do
    step = lambda h, x: torch.tanh(h @ W + x)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(scan(step, init, xs), loop(step, init, xs))
    assert torch._C._len_torch_function_stack() == 0


def test_a_profile_function_sees_the_step_while_it_is_recorded_and_afterwards():
    (W, init, xs), seen = inputs(), []

    def step(h, x):
        return torch.tanh(x + h @ W)

    def profile(frame, event, argument):
        if frame.f_code is step.__code__:
            seen.append((event, argument is None))

    sys.setprofile(profile)
    try:
        scan(step, init, xs)
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    assert seen.count(("call", True)) == seen.count(("return", False)) > 0
    assert {"call", "return", "c_call", "c_return"} == {event for event, _ in seen}


def test_a_profiler_written_in_c_goes_on():
    (W, init, xs), profiler = inputs(), cProfile.Profile()

    def afterwards():
        return 1

    profiler.enable()
    try:
        scan(rnn(W), init, xs)
        afterwards()
    finally:
        profiler.disable()
    assert "afterwards" in {name for _, _, name in pstats.Stats(profiler).stats}


@pytest.mark.process
def test_a_profile_function_that_ends_itself_and_raises():
    """Nobody else held what watches the step: in a process of its own, since it crashed."""
    script = """
        import sys, torch, ostinato
        W = torch.ones(2, 2)
        def step(h, x): return torch.tanh(x + h @ W)
        def profile(frame, event, argument):
            if frame.f_code is step.__code__:
                sys.setprofile(None)
                raise ValueError("enough")
        sys.setprofile(profile)
        try:
            ostinato.scan(step, torch.zeros(2, 2), torch.ones(3, 2, 2))
        except ValueError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = done.stdout.splitlines()  # before Python 3.11 the message has a note, too
    assert (done.returncode, said[:1]) == (0, ["enough"]), done.stderr


def test_a_step_that_sets_the_profile_function_and_puts_it_back():
    W, init, xs = inputs()

    def step(h, x):
        before = sys.getprofile()
        sys.setprofile(lambda frame, event, argument: before and before(frame, event, argument))
        z = h @ W
        sys.setprofile(before)
        return torch.tanh(z + x)

    assert ostinato.explain(step, init, xs).native
    assert_same(gradients(scan, step, [W], init, xs), gradients(loop, rnn(W), [W], init, xs))
    assert sys.getprofile() is None


def test_what_a_step_reads_after_it_has_set_another_profile_function():
    (W, init, xs), held = inputs(), {"gain": 1.5}

    def helper(z):
        return z * held["gain"]

    def step(h, x):
        with cProfile.Profile():
            z = h @ W
        return helper(torch.tanh(z + x))

    for gain in (1.5, 2.5, 0.5):
        held["gain"] = gain
        written = lambda h, x: torch.tanh(h @ W + x) * held["gain"]  # noqa: E731
        assert_same(gradients(scan, step, [W], init, xs), gradients(loop, written, [W], init, xs))
