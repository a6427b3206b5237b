"""How a program becomes machine code, and what happens where it cannot."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest
import torch
from random_programs import Maker, numbers_of

import ostinato
from ostinato.engine import machine_code, native

WITHOUT = importlib.util.find_spec("llvmlite") is None
needs_llvm = pytest.mark.skipif(WITHOUT, reason="llvmlite is not installed")


def narrow_program(seed=0):
    """A program that has register code, and a function that plays it and returns its arrays."""
    while True:
        maker = Maker(np.random.default_rng(seed))
        made = native.make(maker.program(), np.dtype(np.float64))
        if made.register_code() is not None:
            break
        seed += 1

    def play(tier):
        arrays = maker.arrays(30, 1, np.float64, seed)
        numbers = numbers_of(arrays, [what for what, _ in maker.arguments])
        made.play(native.addresses(numbers), 30, 1, [], [], 1, native.best_isa(), tier=tier)
        return arrays

    return made, play


def lorenz(p, start):
    x, y, z = start
    xs = []
    for _ in range(2000):
        dx, dy, dz = p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z
        x, y, z = x + 0.001 * dx, y + 0.001 * dy, z + 0.001 * dz
        xs.append(x)
    return torch.stack(xs).square().mean()


def called(run, times):
    """Values and gradients of calls."""
    found = []
    for _ in range(times):
        p = torch.tensor([10.0, 28.0, 8 / 3], dtype=torch.float64, requires_grad=True)
        value = run(p, torch.ones(3, dtype=torch.float64))
        value.backward()
        found.append((value.item(), *p.grad.tolist()))
    return found


def wait_for_compilers():
    for thread in threading.enumerate():
        if thread.name == "ostinato-compiler":
            thread.join()


@needs_llvm
def test_a_loop_becomes_machine_code_with_the_same_bits():
    run = ostinato.loop(lorenz)
    first = called(run, 400)  # meanwhile it is compiled
    wait_for_compilers()
    assert {*first, *called(run, 5)} == {first[0]}
    p = torch.tensor([10.0, 28.0, 8 / 3], dtype=torch.float64, requires_grad=True)
    shown = str(ostinato.explain(run, p, torch.ones(3, dtype=torch.float64)))
    assert "backward pass       machine code" in shown


@needs_llvm
def test_functions_live_as_long_as_their_program():
    made, play = narrow_program()
    play("machine_code")
    functions = weakref.ref(made.keeps)
    assert functions() is not None
    del made, play
    gc.collect()
    assert functions() is None


@needs_llvm
@pytest.mark.process
def test_functions_in_a_circle_of_references_are_freed():
    """Python's collector frees the parts of a circle in any order."""
    script = """
        import gc
        from ostinato.engine.machine_code.by_llvm import compiled
        class Owner: pass
        for _ in range(20):
            owner = Owner()
            owner.itself, owner.functions = owner, compiled("define i32 @f0() { ret i32 1 }", 1, 0)
            del owner
            gc.collect()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("where", ["text", "LLVM", "instructions"])
def test_a_failure_leaves_register_code(monkeypatch, where):
    def fails(*_):
        raise RuntimeError("broken on purpose")

    if WITHOUT and where == "LLVM":
        pytest.skip("llvmlite is not installed")
    made, play = narrow_program()
    wanted = play("registers")
    if where == "instructions":
        monkeypatch.setattr(machine_code, "MOST_INSTRUCTIONS", 0)
    else:
        monkeypatch.setattr(machine_code, {"text": "module_text", "LLVM": "compiled"}[where], fails)
    monkeypatch.setattr(machine_code.importlib.util, "find_spec", lambda name: True)
    for a, b in zip(wanted, play("machine_code"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "on purpose" in made.compiling or "at most 0" in made.compiling


def test_without_llvmlite_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(machine_code.importlib.util, "find_spec", lambda name: None)
    made, play = narrow_program()
    play("machine_code")
    assert "ostinato[jit]" in made.compiling


@needs_llvm
def test_an_old_llvmlite_is_told_from_a_new_one(monkeypatch):
    by_llvm = machine_code.by_llvm
    monkeypatch.setattr(by_llvm, "FIRST_VERSION", (1000,))
    by_llvm._llvm.cache_clear()
    made, play = narrow_program()
    play("machine_code")
    assert "too old" in made.compiling


def test_functions_must_be_one_for_each_list():
    made, _ = narrow_program()
    n = 1 + len(made.register_code()[1])
    with pytest.raises(ValueError, match="one function for each"):
        made.use_machine_code([1] * (n + 1))
    with pytest.raises(ValueError, match="address"):
        made.use_machine_code([0] * n)


def in_a_process(code, **environment):
    of = {**os.environ, **environment}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=of, capture_output=True, text=True, timeout=120)


@pytest.mark.process
def test_the_start_does_not_import_llvmlite():
    done = in_a_process(
        """
        import sys, ostinato
        assert not [m for m in sys.modules if "llvmlite" in m or "machine_code" in m]
        """
    )
    assert done.returncode == 0, done.stderr


@needs_llvm
@pytest.mark.process
def test_a_process_ends_and_forks_while_it_compiles():
    done = in_a_process(
        """
        import os, threading, numpy as np
        from ostinato.engine import machine_code, native
        from random_programs import Maker, numbers_of
        makers = [Maker(np.random.default_rng(seed)) for seed in range(40)]
        programs = [native.make(m.program(), np.dtype(np.float64)) for m in makers]
        programs = [p for p in programs if p.register_code() is not None]
        for p in programs:
            native._compile(p, at_once=False)
        for _ in range(3):  # a child can compile, too
            child = os.fork()
            if child == 0:
                mine = native.make(makers[0].program(), np.dtype(np.float64))
                if mine.register_code() is not None:
                    native._compile(mine, at_once=True)
                    os._exit(0 if mine.compiling == "" else 1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        print("ends", flush=True)
        """,
        PYTHONPATH=os.pathsep.join(sys.path),
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr
