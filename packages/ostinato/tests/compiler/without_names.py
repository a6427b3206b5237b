"""Run ostinato in a PyTorch without each of the given private names, in turn.

    python packages/ostinato/tests/compiler/without_names.py torch._C.DisableTorchFunction ...

Each runs in a fork of a process that has imported torch, and not ostinato. Ends with 1 if a result
differs from PyTorch's, or the engine is used or not used, or warned about, as it should not be.
"""

import logging
import os
import sys
import traceback

import torch
import torch.utils._device


def summed(xs):
    h = xs.new_zeros(3)
    for x in xs:
        h = torch.tanh(h * 0.5 + x)
    return h


def step(h, x):
    return torch.tanh(h * 0.5 + x)


def without(name):
    *path, last = name.split(".")[1:]
    owner = torch
    for part in path:
        owner = getattr(owner, part)
    taken = getattr(owner, last)
    delattr(owner, last)
    from ostinato.compiler import torch_private

    setattr(owner, last, taken)  # PyTorch itself may need it
    native = not torch_private.missing
    assert native or name in torch_private.missing
    warnings = []
    logging.getLogger("ostinato").addFilter(lambda r: warnings.append(r.getMessage()))
    run(native)
    assert len(warnings) == (not native), warnings
    assert native or name in warnings[0]


def run(native):
    import ostinato

    xs = torch.randn(9, 2, 3, requires_grad=True)
    start = torch.zeros(2, 3)
    wanted = start
    for x in xs:
        wanted = step(wanted, x)
    same(lambda: ostinato.scan(step, start, xs)[0], lambda: wanted, xs)
    assert ostinato.explain(step, start, xs).native is native
    same(lambda: ostinato.loop(summed)(xs[:, 0]), lambda: summed(xs[:, 0]), xs)
    for name, x in (("LSTM", xs), ("GRUCell", xs[0])):
        of_torch = getattr(torch.nn, name)(3, 4)
        ours = getattr(ostinato.nn, name)(3, 4)
        ours.load_state_dict(of_torch.state_dict())
        same(lambda: first(ours(x)), lambda: first(of_torch(x)), xs)  # noqa: B023


def first(result):
    return result if isinstance(result, torch.Tensor) else result[0]


def same(ours, theirs, xs):
    """Values and gradients are those of PyTorch."""
    a, b = ours(), theirs()
    torch.testing.assert_close(a, b)
    (of_a,), (of_b,) = (torch.autograd.grad(t.sum(), xs, retain_graph=True) for t in (a, b))
    torch.testing.assert_close(of_a, of_b)


def main(names):
    failed = []
    for name in names:
        child = os.fork()
        if child == 0:
            try:
                without(name)
            except BaseException:
                print(f"without {name}:", traceback.format_exc(), flush=True)
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            failed.append(name)
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
