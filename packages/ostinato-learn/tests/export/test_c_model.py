"""Whole models as C: their answers beside the runtime's, the generated self-test, the report."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from c_examples import STRICT, Library, checked_run, library_of, needs_gcc, run

from ostinato.engine import native
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.export.c import Given, export_network
from ostinato_learn.export.c.play import bound
from ostinato_learn.export.c.prepare import prepared
from ostinato_learn.export.c.program import local_arrays, part
from ostinato_learn.export.c.selftest import as_read
from ostinato_learn.export.c.write import LICENCE, Source, comment, plain
from ostinato_learn.models import ClassifierNet, LanguageNet, TaggerNet
from ostinato_learn.models.saved_graph import describe
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.model_graph import Ahead
from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.step_graph import StepGraph
from ostinato_learn.tasks.classify.net import ClassifierEnsemble
from zoo.suites import one_in

pytestmark = [
    needs_gcc,
    pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine"),
]


class Leaky(torch.nn.Module):
    """A cell of a user: a leak whose rate depends on the input, layer normalization, an output
    that is not its carry, and a carry that does not begin at zero."""

    def __init__(self, n_features, hidden_size):
        super().__init__()
        self.into = torch.nn.Linear(n_features + hidden_size, hidden_size)
        self.rate = torch.nn.Linear(n_features, hidden_size)
        self.norm = torch.nn.LayerNorm(hidden_size)
        self.first = torch.nn.Parameter(torch.linspace(-1, 1, hidden_size))

    def initial(self, x):
        return self.first.expand(len(x), -1)

    def forward(self, h, x):
        rate = torch.sigmoid(self.rate(x))
        h = (1 - rate) * h + rate * torch.tanh(self.norm(self.into(torch.cat([x, h], 1))))
        return h, torch.nn.functional.gelu(h) + torch.exp(-h.abs())


def given(net, **options):
    torch.manual_seed(1)
    for p in net.parameters():
        p.data = torch.randn(p.shape) * (0.5 if p.dim() == 1 else 1.2 / p.shape[-1] ** 0.5)
    graph, folded = describe(net.eval())
    tensors = {n: t.detach().numpy() for n, t in {**net.state_dict(), **folded}.items()}
    return Given(graph, tensors, **options)


def exported(g, place, *flags, **options):
    """The report, and the compiled library."""
    report = export_network(g, place / "net.c", **options)
    (n_inputs,) = re.findall(r"in\[(\d+)\]\,", (place / "net.h").read_text()) or (0,)
    n_inputs = int(n_inputs)
    return report, Library(place / "net.c", n_inputs, g.graph.n_outputs, report.state, *flags)


def runtime_answers(g, x):
    """Of every part of the sequence x `[T, F]` from its beginning on, `[T, K]`."""
    network = Network(g.graph, g.tensors)
    if g.graph.readout.kind == "each":
        return network.answers(x[None])[0]
    return np.stack([network.answers(x[None, : t + 1])[0] for t in range(len(x))])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tagger(n_features, n_classes):
    return TaggerNet(
        n_features=n_features, n_classes=n_classes, cell="gru", hidden_size=16, bidirectional=False
    )


NETWORKS = {
    **{
        f"{cell}-{readout}": partial(
            ClassifierNet, 5, 4, Leaky if cell == "own" else cell, 17, 2, readout=readout
        )
        for cell, readout in (  # a readout reads what a cell gives out, whichever it is
            ("rnn", "last"),
            ("gru", "mean"),
            ("lstm", "max"),
            ("own", "attention"),
            ("rnn", "attention"),
            ("gru", "max"),
            ("lstm", "mean"),
            ("own", "last"),
        )
    },
    "tagger": lambda: tagger(5, 3),
    "one of everything": lambda: ClassifierNet(1, 1, "lstm", 1),
    "ensemble": lambda: ClassifierEnsemble(
        [ClassifierNet(5, 4, "gru", 8, readout="attention") for _ in range(3)]
    ),
}


# ---- answers


@pytest.mark.parametrize("name", one_in(4, NETWORKS))
def test_answers_are_those_of_the_runtime(name, tmp_path):
    g = given(NETWORKS[name]())
    x = noise(20, g.graph.n_inputs)
    expected = runtime_answers(g, x)
    step, answer = (part(graph, g.tensors) for graph in g.graph.composed())
    allowed = bound(step, answer, x)
    assert allowed.max() < 2e-4
    # Contracted, so that sums are rounded in other places than the runtime's are.
    _, library = exported(g, tmp_path, "-O3", "-march=native", "-ffp-contract=fast")
    stream = library.stream()
    assert (np.abs(stream.answers(x) - expected) <= allowed).all()
    stream.init()
    assert (np.abs(stream.answers(x) - expected) <= allowed).all()


@pytest.mark.parametrize("size", [6, 0], ids=["embeddings", "zeros and a one"])
def test_a_language_model_reads_numbers_of_tokens(size, tmp_path):
    g = given(LanguageNet(n_tokens=11, cell="gru", hidden_size=9, embedding_size=size))
    tokens = np.random.default_rng(0).integers(0, 11, 12)
    expected = Network(g.graph, g.tensors).answers(tokens[None])[0]
    _, library = exported(g, tmp_path)
    ours = library.stream().answers(tokens)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    stream = library.stream()
    for wrong in (-1, 11, -(2**31), 2**31 - 1):
        assert stream.step(wrong) == (1, None)
    np.testing.assert_array_equal(stream.answers(tokens), ours)  # nothing has changed


def test_streams_are_independent(tmp_path):
    """Two that take turns, and one that another interrupts, have the answers of one alone."""
    _, library = exported(given(ClassifierNet(3, 4, "gru", 8, readout="mean")), tmp_path)
    a, b = noise(9, 3), noise(9, 3, seed=1)
    alone = library.stream().answers(a), library.stream().answers(b)
    first, second = library.stream(), library.stream()
    found = [(first.step(x)[1], second.step(y)[1]) for x, y in zip(a, b, strict=True)]
    for whole, steps in zip(alone, zip(*found, strict=True), strict=True):
        np.testing.assert_array_equal(whole, np.stack(steps))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_refused_changes_nothing(wrong, tmp_path):
    _, library = exported(given(ClassifierNet(3, 4, "lstm", 8)), tmp_path)
    x = noise(4, 3)
    stream = library.stream()
    stream.step(x[0])
    before = stream.memory.copy()
    assert stream.step(np.array([0, wrong, wrong])) == (2, None)
    np.testing.assert_array_equal(stream.memory, before)
    np.testing.assert_array_equal(stream.answers(x[1:]), library.stream().answers(x)[1:])


def test_without_out_no_answer_is_computed(tmp_path):
    _, library = exported(given(ClassifierNet(3, 4, "gru", 8)), tmp_path)
    x = noise(4, 3)
    stream = library.stream()
    for row in x[:-1]:
        pointers = stream.memory.ctypes.data, row.ctypes.data
        assert library.library.net_step(*map(ctypes.c_void_p, pointers), None) == 0
    np.testing.assert_array_equal(stream.step(x[-1])[1], library.stream().answers(x)[-1])


# ---- preprocessing


def inputs_as_answers(preparation):
    """A model that answers with what the network reads."""
    width = len(preparation.columns)
    c = Composer()
    x, state = c.input(width), c.state(width)
    step = StepGraph((x,), (state,), (x,), ())
    c = Composer()
    x = c.input(width)
    answer = StepGraph((x,), (), (), (x,))
    return Source(
        "net",
        "Inputs",
        prepared(preparation),
        part(step, {}),
        part(answer, {}),
        (width,),
        width,
        (),
        False,
    )


@pytest.mark.parametrize("missing", ["error", "mask", "fill", "forward"])
def test_preprocessing_has_the_bits_of_the_training(missing, tmp_path):
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(3, 30, 4)) * [1, 1e-3, 5, 1] + [1e6, 0, -20, 0]
    words = ("ab", "c", "de")
    raw[:, :, 2] = rng.integers(0, 3, (3, 30))
    raw = raw.astype(np.float32)
    if missing != "error":
        raw[rng.random(raw.shape) < 0.3] = np.nan
        raw[0, :2] = np.nan  # also before there is any
    names, categories = ("a", "b", "word", "c"), {"word": words}
    examples = Examples(raw, features=names, categories=categories)
    preparation = Preparation.fit(examples, missing=missing)
    library = library_of(inputs_as_answers(preparation), tmp_path)
    for sequence, wanted in zip(raw, as_read(preparation, raw), strict=True):
        np.testing.assert_array_equal(library.stream().answers(sequence), wanted)
    unknown = np.array([1e6, 0, 7, 0], np.float32)  # a word that was not trained: zeros
    assert not library.stream().step(unknown)[1][2:5].sum() > 0 or missing == "mask"
    for i in range(4):
        refused = unknown.copy()
        refused[i] = np.inf
        assert library.stream().step(refused)[0] == i + 1
        refused[i] = np.nan
        assert library.stream().step(refused)[0] == (i + 1 if missing == "error" else 0)
    far = np.array([1e6, 3e38, 0, 0], np.float32)
    assert library.stream().step(far)[0] == 2


def test_what_c_does_not_read_is_refused():
    words = Examples(noise(2, 3, 1), features=("a",), statics={"s": np.zeros(2)})
    with pytest.raises(ValueError, match="static columns"):
        prepared(Preparation.fit(words))


# ---- the files


def test_strict_compilers_and_sanitizers_find_nothing(tmp_path):
    g = given(ClassifierNet(5, 4, Leaky, 9, 2, readout="attention"))
    export_network(g, tmp_path / "net.c")
    sanitizers = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    for compiler in filter(shutil.which, ("gcc", "clang")):
        for flags in (["-O0"], ["-O3", "-march=native"], sanitizers):
            command = [compiler, *STRICT, *flags, "net.c", "net_test.c", "-o", "test", "-lm"]
            checked_run(*command, cwd=tmp_path)
            assert "8 steps are right" in checked_run("./test", cwd=tmp_path)
    checked_run("gcc", "-x", "c++", "-c", "-Wall", "-Werror", "net.h", "-o", "h.o", cwd=tmp_path)


def test_a_macro_flushes_numbers_below_the_smallest_normal_one(tmp_path):
    export_network(given(ClassifierNet(2, 3, "rnn", 3)), tmp_path / "net.c")
    (tmp_path / "main.c").write_text(
        '#include "net.h"\nint main(void)\n{\n    volatile float x = 1e-30f, y = 1e-40f;\n'
        "    int kept = x * 1e-10f != 0.0f && y != 0.0f;\n    NET_FLUSH_DENORMALS();\n"
        "    return !(kept && x * 1e-10f == 0.0f && y == 0.0f && x * 1e-7f != 0.0f);\n}\n"
    )
    emulators = {"gcc": [], "aarch64-linux-gnu-gcc": ["qemu-aarch64"]}
    for compiler, emulator in emulators.items():
        if all(shutil.which(command) for command in (compiler, *emulator)):
            checked_run(compiler, *STRICT, "-O2", "-static", "main.c", "-o", "main", cwd=tmp_path)
            checked_run(*emulator, "./main", cwd=tmp_path)


def test_nothing_is_allocated_printed_or_kept(tmp_path):
    exported(given(ClassifierNet(5, 4, "gru", 9, readout="mean")), tmp_path)
    checked_run("gcc", "-std=c99", "-O2", "-c", "net.c", cwd=tmp_path)
    kinds = {line.split()[-2] for line in checked_run("nm", "net.o", cwd=tmp_path).splitlines()}
    assert kinds <= set("TtRrU")  # functions and constants, no variable
    wanted = checked_run("nm", "-u", "net.o", cwd=tmp_path).split()
    assert set(wanted) - {"U"} <= {"memset", "memcpy", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def test_the_self_test_finds_a_wrong_weight(tmp_path):
    export_network(given(ClassifierNet(5, 4, "gru", 9)), tmp_path / "net.c")
    text = (tmp_path / "net.c").read_text()
    (first,) = re.findall(r"net_weights0\[\d+\] = \{\n    (\S+?)f,", text)
    assert text.count(f"    {first}f,") == 1
    (tmp_path / "net.c").write_text(text.replace(f"    {first}f,", f"    {float(first) + 0.01}f,"))
    checked_run("gcc", "net.c", "net_test.c", "-o", "test", "-lm", cwd=tmp_path)
    done = run("./test", cwd=tmp_path)
    assert done.returncode == 1 and re.search("step [12] is wrong", done.stdout)


def test_the_self_test_alone_needs_no_stdio(tmp_path):
    export_network(given(ClassifierNet(5, 4, "rnn", 4)), tmp_path / "net.c")
    checked_run("gcc", *STRICT, "-DNET_NO_MAIN", "-c", "net_test.c", cwd=tmp_path)
    assert "printf" not in checked_run("nm", "-u", "net_test.o", cwd=tmp_path)


def test_labels_of_people_stay_within_comments(tmp_path):
    labels = ("*/ int evil;", "/* nested", "ends with \\", "tri??/", "two\nlines", "\u202e", "@x")
    g = given(ClassifierNet(2, len(labels), "rnn", 3), outputs=labels, title="*/ #error")
    export_network(g, tmp_path / "net.c")
    checked_run("gcc", *STRICT, "-trigraphs", "-c", "net.c", "-o", "net.o", cwd=tmp_path)
    assert "evil" not in checked_run("gcc", "-E", "net.c", cwd=tmp_path)
    assert plain("Größe m/s²") == "Größe m/s²"
    assert max(map(len, comment("word " * 200).split("\n"))) <= 100


def test_the_notice_is_in_every_file(tmp_path):
    report = export_network(given(ClassifierNet(2, 3, "rnn", 3)), tmp_path, name="x1")
    assert [p.name for p in report.files] == ["x1.c", "x1.h", "x1_test.c"]
    for p in report.files:
        for line in LICENCE.splitlines():
            assert line in p.read_text()


def test_two_models_in_one_program(tmp_path):
    for name in ("one", "two"):
        export_network(given(ClassifierNet(2, 3, "gru", 3)), tmp_path, name=name)
    main = '#include "one.c"\n#include "two.c"\nint main(void) { return 0; }\n'
    (tmp_path / "main.c").write_text(main)
    checked_run("gcc", *STRICT, "main.c", "-o", "main", "-lm", cwd=tmp_path)


def test_refusals_write_nothing(tmp_path):
    both = given(ClassifierNet(2, 3, "gru", 3, bidirectional=True))
    with pytest.raises(ValueError, match="gru layer 0 also reads from the end"):
        export_network(both, tmp_path / "net.c")
    g = given(ClassifierNet(2, 3, "gru", 3))
    c = Composer()
    x, known = c.input(3), c.input(1)
    ahead = Ahead(1, StepGraph((x, known), (), (), (x,)))
    with pytest.raises(ValueError, match="a forecaster scales each window as a whole"):
        export_network(replace(g, graph=replace(g.graph, ahead=ahead)), tmp_path / "net.c")
    letters = given(LanguageNet(n_tokens=11, cell="gru", hidden_size=9))
    embed = replace(letters.graph.embed, spelling=letters.graph)
    with pytest.raises(ValueError, match="reads the letters of each word"):
        export_network(replace(letters, graph=replace(letters.graph, embed=embed)), tmp_path)
    for name in ("3d", "a-b", "ö", "x" * 60, "math"):
        with pytest.raises(ValueError, match="names of C functions"):
            export_network(g, tmp_path, name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_three_files_or_none(there, tmp_path):
    """One of them cannot be written: the others are as they were."""
    g = given(ClassifierNet(2, 3, "gru", 3))
    if there:
        for name in ("net.c", "net_test.c"):
            (tmp_path / name).write_text("mine")
    (tmp_path / "net.h").mkdir()
    with pytest.raises(OSError, match=r"net\.h"):
        export_network(g, tmp_path / "net.c")
    found = {p.name: p.read_text() for p in tmp_path.iterdir() if p.is_file()}
    assert found == ({"net.c": "mine", "net_test.c": "mine"} if there else {})


# ---- sizes


def test_layers_share_their_local_arrays():
    """Three layers need no more of the stack than two, which differ in their input."""
    found = {}
    for n_layers in (2, 3):
        g = given(ClassifierNet(5, 4, "gru", 16, n_layers))
        step = part(g.graph.composed()[0], g.tensors)
        arrays = local_arrays(step, set())
        assert len(set(arrays.values())) < len(arrays)
        found[n_layers] = max(arrays.values())
    assert found[2] == found[3]


def test_the_report(tmp_path):
    report, _ = exported(given(ClassifierNet(5, 4, "gru", 16)), tmp_path)
    assert report.products == 5 * 48 + 16 * 48 + 16 * 4
    assert report.state == 4 * 16
    assert report.tables == 4 * (5 * 48 + 16 * 48 + 16 * 4 + 4 * 16 + 4)
    for said in ("1,072 multiplications", "64 bytes for each stream", "4,560 bytes of tables"):
        assert said in str(report)


# ---- the module


@pytest.mark.process
def test_export_needs_no_torch():
    script = 'import sys; sys.modules["torch"] = None; import ostinato_learn.export.c'
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
