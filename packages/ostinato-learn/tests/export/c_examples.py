"""Exported C code, compiled and called, for the tests."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ostinato_learn.export.c.prepare import unprepared
from ostinato_learn.export.c.program import part
from ostinato_learn.export.c.write import Source, header, source
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.step_graph import StepGraph
from shared.reference import play_step

STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def run(*command, cwd=None):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def checked_run(*command, cwd=None):
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compiled(file: Path, *flags: str) -> ctypes.CDLL:
    made = file.with_suffix(".so")
    checked_run(
        "gcc",
        *STRICT,
        *(flags or ("-O1",)),
        "-shared",
        "-fPIC",
        file.name,
        "-o",
        made.name,
        "-lm",
        cwd=file.parent,
    )
    return ctypes.CDLL(str(made))


class Library:
    """The functions of one exported file, by ctypes."""

    def __init__(self, file: Path, n_inputs: int, n_outputs: int, state_bytes: int, *flags: str):
        """n_inputs: 0 of a model that is given the number of a token."""
        self.n_inputs, self.n_outputs, self.state_bytes = n_inputs, n_outputs, state_bytes
        self.name = file.stem
        self.library = compiled(file, *flags)

    @classmethod
    def of(cls, s: Source, library: ctypes.CDLL) -> Library:
        """The functions of a source that was compiled among others."""
        self = cls.__new__(cls)
        self.n_inputs, self.n_outputs = s.prepare.n_inputs, s.n_outputs
        self.state_bytes, self.name, self.library = state_bytes(s), s.name, library
        return self

    def stream(self):
        return Stream(self)


class Stream:
    """One state, with a guard behind it that no step may overwrite."""

    def __init__(self, library: Library):
        self.l = library
        self.memory = np.full(library.state_bytes // 4 + 1, 12345, np.float32)
        self.init()

    def init(self):
        getattr(self.l.library, f"{self.l.name}_init")(_address(self.memory))

    def step(self, x):
        """0 and the answer, or the number of the input that is refused and None."""
        if self.l.n_inputs == 0:
            x, given = None, ctypes.c_int32(x)
        else:
            x = np.ascontiguousarray(x, np.float32)
            assert x.shape == (self.l.n_inputs,)
            given = _address(x)
        out = np.full(self.l.n_outputs + 1, 54321, np.float32)
        refused = getattr(self.l.library, f"{self.l.name}_step")(
            _address(self.memory), given, _address(out)
        )
        assert self.memory[-1] == 12345 and out[-1] == 54321
        return refused, None if refused else out[:-1]

    def answers(self, xs):
        """`[T, K]` of `[T, inputs]`, or of `[T]` tokens."""
        found = []
        for x in xs:
            refused, answer = self.step(x)
            assert refused == 0
            found.append(answer)
        return np.stack(found)


def _address(array):
    return ctypes.c_void_p(array.ctypes.data)


# ---- single steps, whose answer is all of the new carry


def whole_carry(widths):
    c = Composer()
    inputs = [c.input(w) for w in widths]
    return StepGraph(tuple(inputs), (), (), (c.concat(inputs),))


def with_one_input(graph):
    """The same step, its inputs side by side, and without outputs."""
    c = Composer()
    x, column, inputs = c.input(sum(n.width for n in graph.inputs)), 0, []
    for n in graph.inputs:
        inputs.append(c.slice(x, column, n.width))
        column += n.width
    states = [c.state(n.width) for n in graph.states]
    new_states, _ = c.inlined(graph, inputs, states)
    return StepGraph((x,), tuple(states), tuple(new_states), ())


def source_of(graph, tensors, name="step", int8=False):
    """A step graph as C."""
    widths = tuple(n.width for n in graph.states)
    step = with_one_input(graph)
    return Source(
        name,
        "A step",
        unprepared(step.inputs[0].width),
        part(step, tensors),
        part(whole_carry(widths), {}),
        widths,
        sum(widths),
        (),
        int8,
    )


def library_of(s: Source, place: Path, *flags):
    (place / f"{s.name}.c").write_text(source(s))
    (place / f"{s.name}.h").write_text(header(s))
    return Library(place / f"{s.name}.c", s.prepare.n_inputs, s.n_outputs, state_bytes(s), *flags)


def libraries_of(sources: Sequence[Source], place: Path) -> list[Library]:
    """Sources of different names in one translation unit: a process for each takes ten times as
    long."""
    for s in sources:
        (place / f"{s.name}.c").write_text(source(s))
        (place / f"{s.name}.h").write_text(header(s))
    (place / "all.c").write_text("".join(f'#include "{s.name}.c"\n' for s in sources))
    library = compiled(place / "all.c")
    return [Library.of(s, library) for s in sources]


def state_bytes(s: Source) -> int:
    n_last = 0 if s.prepare.last is None else len(s.prepare.last)
    return 4 * (sum(s.widths) + n_last)


def reference_answers(graph, tensors, xs):
    """The carry after each step in float64, by the meaning of the nodes, `[T, ΣH]`."""
    tensors = {name: t.astype(np.float64) for name, t in tensors.items()}
    cuts = np.cumsum([n.width for n in graph.inputs])[:-1]
    states = [np.zeros((1, n.width)) for n in graph.states]
    found = []
    for x in xs.astype(np.float64):
        states, _ = play_step(graph, np.split(x[None], cuts, axis=1), states, tensors)
        found.append(np.concatenate(states, axis=1)[0])
    return np.stack(found)
