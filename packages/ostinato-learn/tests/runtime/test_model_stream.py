"""Streams: the bits of whole sequences, however they come; states; refusals; one owner."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from graph_parts import Parts
from stream_cases import FINGERPRINT, rows, source

from ostinato.engine import native
from ostinato_learn import SequenceClassifier, runtime
from ostinato_learn.data.tables.names import Names
from ostinato_learn.runtime import stream as stream_module
from ostinato_learn.runtime.pool import Pool
from ostinato_learn.runtime.stream import BATCH_FROM, Stream
from ostinato_learn.runtime.stream_source import RowScaling, StreamSource
from zoo.suites import in_pairs, one_in

CELLS = [["rnn"], ["gru"], ["lstm"], ["own"], ["own", "own"], ["lstm", "gru"]]
READOUTS = ["last", "each", "mean"]
T = 7


def prefixes(made, x):
    """What the batch engine answers after each step of x; a single row would be played by steps."""
    two = np.stack([x, x])
    if made.network.graph.readout.kind == "each":
        return made.network.answers(two)[0]
    return np.stack([made.network.answers(two[:, : t + 1])[0] for t in range(len(x))])


# F odd; H below, at and above a vector of 16 lanes, and of several panels.
@pytest.mark.parametrize(
    ("cells", "H", "readout"),
    one_in(2, in_pairs(CELLS, [1, 15, 16, 17, 64], READOUTS), of_several=True),
    ids=lambda v: "-".join(v) if isinstance(v, list) else None,
)
def test_every_way_has_the_bits_of_predict(cells, readout, H):
    parts = Parts()
    made = source(parts, parts.model(cells, readout, H=H))
    x = rows(T, 5)
    wanted = prefixes(made, x)
    step_by_step = Stream(made)
    for t in range(T):
        answer = step_by_step.push(x[t])
        np.testing.assert_array_equal(answer.proba, wanted[t])
        assert answer.n == step_by_step.n == t + 1
        assert answer.label == f"label {wanted[t].argmax()}"
    for cut in (1, 4):
        chunks = Stream(made)
        first, second = (chunks.push(part, each=True) for part in (x[:cut], x[cut:]))
        np.testing.assert_array_equal(np.concatenate([first.proba, second.proba]), wanted)
        assert [a.n for a in second] == list(range(cut + 1, T + 1))
    buffer, last = np.empty(3, np.float32), Stream(made)
    assert last.push(x, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, wanted[-1])


@pytest.mark.parametrize(
    ("cells", "readout", "each"),
    one_in(2, in_pairs(CELLS, READOUTS, [True, False]), of_several=True),
    ids=lambda v: "-".join(v) if isinstance(v, list) else None,
)
@pytest.mark.parametrize("by_steps", [True, False], ids=["steps", "batch engine"])
def test_long_chunks_have_the_bits_of_steps(monkeypatch, by_steps, cells, readout, each):
    assert stream_module.MOST_STEPWISE > 10_000  # more than these models have
    if not by_steps:
        monkeypatch.setattr(stream_module, "MOST_STEPWISE", 0)
    parts = Parts()
    made = source(parts, parts.model(cells, readout, H=17))
    x = rows(3 * BATCH_FROM, 5)
    by_steps, by_chunks = Stream(made), Stream(made)
    wanted = np.stack([by_steps.push(row).proba for row in x])
    found = by_chunks.push(x[:5], each=True).proba  # into the middle of a sequence
    np.testing.assert_array_equal(found, wanted[:5])
    answers = by_chunks.push(x[5:-1], each=each)
    proba = answers.proba if each else answers.proba[None]
    np.testing.assert_array_equal(proba, wanted[5:-1] if each else wanted[-2:-1])
    np.testing.assert_array_equal(by_chunks.push(x[-1]).proba, wanted[-1])
    assert by_chunks.n == len(x)
    assert by_chunks.save() == by_steps.save()


def test_instruction_sets_have_one_set_of_bits(monkeypatch):
    found = []
    for isa in native.available_isas():
        monkeypatch.setattr(native, "best_isa", lambda isa=isa: isa)
        answers = []
        for cells in CELLS:
            parts = Parts()
            stream = Stream(source(parts, parts.model(cells, "mean", H=17)))
            answers += [stream.push(row).proba for row in rows(4, 5)]
        found.append(answers)
    assert len(found) > 1
    for answers in found[1:]:
        np.testing.assert_array_equal(answers, found[0])


def test_any_row_is_read():
    parts = Parts()
    made = source(parts, parts.model(["gru"]))
    x = rows(3, 5).astype(np.float64)
    wanted = [Stream(made).push(x[:1].astype(np.float32)[0]).proba] * 5
    wide = np.zeros((5, 9), np.float32)
    wide[:, 3] = x[0]
    forms = [x[0], x[0].tolist(), tuple(x[0]), x[:1], wide[:, 3]]
    for form, proba in zip(forms, wanted, strict=True):
        np.testing.assert_array_equal(Stream(made).push(form).proba, proba)


# ---- states


def test_a_fork_goes_its_own_way():
    parts = Parts()
    made = source(parts, parts.model(["lstm"], "mean"))
    x = rows(8, 5)
    stream = Stream(made)
    for row in x[:3]:
        stream.push(row)
    fork = stream.fork()
    other = [fork.push(row).proba for row in x[5:]]
    ours = [stream.push(row).proba for row in x[3:]]
    alone = Stream(made)
    np.testing.assert_array_equal(ours, [alone.push(row).proba for row in x][3:])
    again = Stream(made)
    for row in x[:3]:
        again.push(row)
    np.testing.assert_array_equal(other, [again.push(row).proba for row in x[5:]])
    assert (stream.n, fork.n) == (8, 6)


def test_a_saved_state_goes_on():
    parts = Parts()
    made = source(parts, parts.model(["gru", "rnn"], "mean"))
    x = rows(6, 5)
    stream, restored = Stream(made), Stream(made)
    for row in x[:4]:
        stream.push(row)
    restored.push(x[5])
    restored.restore(stream.save())
    assert restored.n == 4
    np.testing.assert_array_equal(restored.push(x[4]).proba, stream.push(x[4]).proba)
    stream.reset()
    assert stream.n == 0
    np.testing.assert_array_equal(stream.push(x[0]).proba, Stream(made).push(x[0]).proba)


def test_other_states_are_refused():
    parts = Parts()
    graph = parts.model(["gru"])
    made = source(parts, graph)
    stream = Stream(made)
    stream.push(rows(1, 5)[0])
    state = stream.save()
    other = Stream(StreamSource(made.network, made.names, fingerprint="cd" * 32))
    with pytest.raises(ValueError, match="to another model: its fingerprint begins with abab"):
        other.restore(state)
    wrong = {
        "damaged": state[:60] + bytes([state[60] ^ 1]) + state[61:],
        "is damaged": state[:-1],
        "not the state": b"x" + state,
        "not the state of a stream": b"",
    }
    for message, value in wrong.items():
        with pytest.raises(ValueError, match=message):
            stream.restore(value)
    with pytest.raises(TypeError, match="came list"):
        stream.restore([1])
    assert stream.save() == state
    assert bytes.fromhex(FINGERPRINT) in state


# ---- what is refused


def test_shapes_are_refused():
    parts = Parts()
    stream = Stream(source(parts, parts.model(["gru"])))
    for x, shape in [
        (np.zeros(4), r"\[4\]"),
        (np.zeros((2, 3)), r"\[2, 3\]"),
        (1.0, r"\[\]"),
        (np.zeros((1, 1, 5)), r"\[1, 1, 5\]"),
    ]:
        with pytest.raises(ValueError, match=rf"x has shape {shape}; wanted \[5\]"):
            stream.push(x)
    with pytest.raises(ValueError, match="x has no steps"):
        stream.push(np.zeros((0, 5)))
    with pytest.raises(TypeError, match="real numbers"):
        stream.push(["a"] * 5)
    with pytest.raises(TypeError, match="out: wanted a dense array"):
        stream.push(np.zeros(5, np.float32), out=np.zeros(3))
    assert stream.n == 0


@pytest.mark.parametrize(
    "out",
    [
        np.zeros(3),
        np.zeros(2, np.float32),
        np.zeros((2, 3), np.float32),
        np.zeros(6, np.float32)[::2],
        np.frombuffer(bytes(12), np.float32),
        [0.0, 0.0, 0.0],
    ],
    ids=["float64", "short", "two rows", "not dense", "read-only", "a list"],
)
def test_an_out_that_cannot_hold_the_answer_is_refused_before_a_step_is_read(out):
    parts = Parts()
    stream = Stream(source(parts, parts.model(["gru"])))
    for x in (np.zeros(5, np.float32), np.zeros(5), np.zeros((4, 5))):
        with pytest.raises(TypeError, match="wanted a dense array"):
            stream.push(x, out=out)
    assert stream.n == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    parts = Parts()
    made = source(parts, parts.model(["gru"]))
    x = rows(BATCH_FROM + 8, 5)
    stream, clean = Stream(made), Stream(made)
    wrong = x.copy()
    wrong[3, 2] = value
    for chunk, where in ((wrong[3], "x"), (wrong[:5], "step 3 of x"), (wrong, "step 3 of x")):
        with pytest.raises(ValueError, match=f"{where} has .* at feature 2; wanted finite"):
            stream.push(chunk)
    assert stream.n == 0
    np.testing.assert_array_equal(stream.push(x[0]).proba, clean.push(x[0]).proba)
    lenient = Stream(made, finite=False)
    assert np.isnan(lenient.push(wrong[3]).proba).all() or np.isinf(value)


def test_a_model_that_reads_backwards_is_refused_by_its_layer():
    parts = Parts()
    with pytest.raises(ValueError, match="cannot answer step by step: gru layer 0 also reads"):
        source(parts, parts.model(["gru"], directions=(False, True)))


# ---- rows that are scaled, tokens, several labels


@pytest.mark.parametrize("mask", [False, True])
def test_rows_are_scaled_as_numpy_scales_them(mask):
    rng = np.random.default_rng(0)
    F = 4
    mean, scale = rng.normal(size=F) * 100, np.exp(rng.normal(size=F))
    scale[0] = 0.5
    fill = np.full(F, np.nan)
    fill[1] = 0.25
    parts = Parts()
    graph = parts.model(["gru"], F=2 * F if mask else F)
    made = source(parts, graph, scaling=RowScaling(mean, scale, fill, mask))
    x = rows(40, F) * 50 + mean.astype(np.float32)
    x[7, 1] = np.nan
    values = x.astype(np.float64)
    values[7, 1] = fill[1]
    scaled = ((values - mean) / scale).astype(np.float32)
    if mask:
        scaled = np.stack([scaled, np.isnan(x)], 2).reshape(len(x), -1).astype(np.float32)
    plain = Stream(source(parts, graph))
    wanted = [plain.push(row).proba for row in scaled]
    stream, chunk = Stream(made), Stream(made)
    np.testing.assert_array_equal([stream.push(row).proba for row in x], wanted)
    np.testing.assert_array_equal(chunk.push(x, each=True).proba, wanted)
    x[2, 0] = np.nan
    with pytest.raises(ValueError, match="step 2 of x has NaN at feature 0"):
        chunk.push(x)
    x[2, 0] = np.copysign(3e38, -mean[0])  # finite, until it is scaled
    with pytest.raises(ValueError, match="too far from the values of the training part"):
        chunk.push(x[2])


EVENTS = Names("event", ("cart", "click", "home"))


@pytest.mark.parametrize("missing", ["error", "mask", "fill"])
def test_names_become_columns(missing):
    """As numbers and names, and as numbers with the places of names: in lists and arrays."""
    mean, scale, fill = np.array([2.0, 0.0]), np.array([0.5, 1.0]), np.array([1.5, 0.0])
    if missing == "error":
        fill[:] = np.nan
    mask = missing == "mask"
    parts = Parts()
    graph = parts.model(["gru"], F=6 if mask else 4)
    made = source(parts, graph, scaling=RowScaling(mean, scale, fill, mask, (None, EVENTS)))
    rows_given = [[2.5, "click"], [1.0, " home "], [3, "new"]]
    wanted = [[1, 0, 1, 0], [-2, 0, 0, 1], [2, 0, 0, 0]]
    if missing != "error":
        rows_given += [[None, "cart"], [2.0, None], [2.0, ""]]
        wanted += [[-1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    of_places = np.array([[np.nan if x is None else x, EVENTS.place(e)] for x, e in rows_given])
    read = np.array(wanted, np.float32)
    if mask:
        masks = np.isnan(of_places)
        read = np.column_stack([read[:, 0], masks[:, 0], read[:, 1:], masks[:, 1]])
    plain = Stream(source(parts, graph))
    expected = [plain.push(row).proba for row in read.astype(np.float32)]
    by_name, by_place, pool = Stream(made), Stream(made), Pool(made, 4)
    found = [
        [by_name.push(row).proba for row in rows_given],
        [by_place.push(row).proba for row in of_places.astype(np.float32)],
        Stream(made).push(rows_given, each=True).proba,
        Stream(made).push(of_places, each=True).proba,
        [pool.push({"a": row})["a"].proba for row in rows_given],
    ]
    for probabilities in found:
        np.testing.assert_array_equal(probabilities, expected)
    np.testing.assert_array_equal(made.prepared(of_places.astype(np.float32)), read)


def test_names_that_are_refused():
    parts = Parts()
    two = (np.zeros(2), np.ones(2), np.full(2, np.nan))
    made = source(parts, parts.model(["gru"], F=4), scaling=RowScaling(*two, False, (None, EVENTS)))
    stream = Stream(made)
    for x, message in (
        ([1.0, 2], "feature 'event' of x is 2; wanted a name"),
        (["a", "click"], "feature 0 of x is 'a'; wanted a number"),
        ([1.0, None], "x has NaN at feature 1"),
        ([1.0], r"x has shape \[1\]; wanted \[2\]"),
        ("click", r"x has shape \[1\]; wanted \[2\]"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            stream.push(x)
    assert stream.n == 0


def test_several_labels():
    parts = Parts()
    made = source(parts, parts.model(["gru"]), several=True)
    answer = Stream(made).push(rows(1, 5)[0])
    assert answer.label == tuple(f"label {i}" for i in range(3) if answer.proba[i] > 0.5)


# ---- one owner, cost


def test_a_second_thread_is_refused():
    parts = Parts()
    stream = Stream(source(parts, parts.model(["gru"])))
    refused = []

    def use(f):
        try:
            f()
        except RuntimeError as error:
            refused.append(str(error))

    x = rows(1, 5)[0]
    uses = [
        lambda: stream.push(x),
        lambda: stream.push(rows(40, 5)),
        stream.save,
        stream.fork,
        stream.reset,
    ]
    threads = [threading.Thread(target=use, args=(f,)) for f in uses]
    with stream._state:
        for thread in threads:
            thread.start()
            thread.join()
    assert len(refused) == len(uses)
    assert all("one owner" in text for text in refused)
    assert stream.push(x).n == 1


def test_threads_that_push_at_once_leave_no_torn_state():
    """Each push of a chunk is played whole or refused, whoever comes first."""
    parts = Parts()
    made = source(parts, parts.model(["gru"], H=64))
    stream, x = Stream(made), rows(4000, 5)
    played = []

    def use():
        for _ in range(20):
            try:
                stream.push(x)
            except RuntimeError:
                continue
            played.append(1)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = Stream(made)
    for _ in played:
        alone.push(x)
    assert stream.n == len(played) * len(x)
    assert stream.save() == alone.save()


def test_what_a_step_costs():
    parts = Parts()
    cost = Stream(source(parts, parts.model(["gru"], F=5, H=8))).explain()
    products = 3 * 8 * (5 + 8) + 8 * 3  # gates, head
    assert cost.multiplies == products
    assert cost.weight_bytes == 4 * products
    assert cost.carry_bytes == 4 * 8
    assert cost.carry_bytes < cost.state_bytes <= cost.carry_bytes + 64
    assert f"{products:,} multiplications" in str(cost)


def test_torch_is_met_within_the_bound():
    """A GRU of torch.nn, in float64: T steps, each a chain of K products (see the bound)."""
    torch = pytest.importorskip("torch")
    from ostinato.nn.steps import gru_step

    H, F, n = 64, 5, 50
    torch.manual_seed(0)
    layer = torch.nn.GRU(F, H, batch_first=True)
    weights = [w.detach() for w in layer.parameters()]
    parts = Parts()
    step = parts.graph(gru_step(*weights), weights, torch.zeros(3, H), torch.randn(3, F))
    graph = parts.model(["gru"], F=F, H=H)
    (direction,) = graph.layers[0].directions
    top = replace(graph.layers[0], directions=(replace(direction, step=step),))
    graph = replace(graph, layers=(top,), head=parts.map(lambda s: s * 1.0, [], H))
    x = rows(n, F)
    found = Stream(source(parts, graph)).push(x, each=True).proba
    with torch.no_grad():
        theirs = layer.double()(torch.from_numpy(x).double()[None])[0][0].numpy()
    # A gate sums K = F + H products, which is off by √K ε of its size, and sigmoid and tanh by 2.5
    # ulp more. h' is a mean of h and n: errors of earlier steps fade, by z < 1 a step.
    bound = 8 * np.sqrt(F + H) * np.finfo(np.float32).eps
    assert np.abs(found - theirs).max() < bound


def test_an_answer_is_not_written_over_its_input(tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 4, 2)).astype(np.float32)
    model = SequenceClassifier(hidden_size=3, iterations=1, bidirectional=False)
    model.fit(X, np.arange(20) % 2).save(tmp_path / "model")
    x = X[0, 0].copy()
    with pytest.raises(TypeError, match="that is not x"):
        runtime.load(tmp_path / "model").stream().push(x, out=x)
