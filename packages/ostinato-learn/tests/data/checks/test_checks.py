"""Checks: each finding is planted and found; data without it give none."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn import datasets
from ostinato_learn.data import Ragged
from ostinato_learn.data.checks import Finding, check, contents, shortcuts
from ostinato_learn.data.checks.repeats import first_equal
from ostinato_learn.data.checks.side import Side, stretch_hashes
from ostinato_learn.data.checks.surprise import step_bits
from ostinato_learn.data.checks.windows import shared_windows
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.tables.roles import Roles
from zoo.suites import draws, one_in


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def noise(generator, n, n_steps, n_features=1):
    return generator.normal(size=(n, n_steps, n_features)).astype(np.float32)


def examples(X, y=None, **more):
    if isinstance(X, list):
        X = Ragged.from_list(X)
    return Examples(np.asarray(X, np.float32) if isinstance(X, np.ndarray) else X, y, **more)


def side(X, y=None, **more):
    return Side.of(examples(X, y, **more), "")


def codes(*parts):
    return [finding.code for finding in check(*parts)]


def only(findings, code) -> Finding:
    (found,) = [finding for finding in findings if finding.code == code]
    return found


# --- hashes -----------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), alphabet=st.integers(1, 3))
@draws(50)
def test_first_equal_is_that_of_a_loop(seed, alphabet):
    generator = np.random.default_rng(seed)
    values = np.array([0.0, -0.0, np.nan, 1.0], np.float32)

    def some(n):
        return [
            values[generator.integers(0, alphabet + 1, (generator.integers(0, 4), 2))]
            for _ in range(n)
        ]

    def key(x):
        return (len(x), (x + 0.0).astype(np.float32).tobytes())

    one, other = some(12), some(9)
    first = {}
    for i, x in enumerate(one):
        first.setdefault(key(x), i)
    wanted = [first.get(key(x), -1) for x in other]
    assert first_equal(side(one), side(other)).tolist() == wanted


def test_hashes_of_stretches_do_not_depend_on_where_they_lie(generator):
    steps = generator.integers(0, 2**63, 50).astype(np.uint64)
    twice = np.concatenate([steps, steps[:3], steps])
    starts = np.arange(40)
    assert (
        stretch_hashes(twice, starts, starts + 7) == stretch_hashes(steps, starts, starts + 7)
    ).all()
    again = starts + 53
    assert (
        stretch_hashes(twice, again, again + 7) == stretch_hashes(steps, starts, starts + 7)
    ).all()
    assert len(set(stretch_hashes(np.zeros(20, np.uint64), np.zeros(9, int), np.arange(9)))) == 9


def test_the_order_of_steps_and_features_counts():
    X = np.array([[[1, 2], [3, 4]], [[3, 4], [1, 2]], [[2, 1], [4, 3]], [[1, 2], [3, 4]]])
    assert first_equal(side(X), side(X)).tolist() == [0, 1, 2, 0]


def test_a_hash_alone_makes_no_copy():
    X = np.array([[[1], [2]], [[3], [4]], [[1], [2]]])
    whole = side(X)
    vars(whole)["sequence_hashes"] = np.zeros(3, np.uint64)
    assert first_equal(whole, whole).tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    "y",
    [
        list("baacab"),
        ["", "", "x"],
        [3, 1, 3],
        [True, False, True],
        [2.0, 1.0, 2.0],
        ["kurz", "sehr lang", "kurz"],
    ],
)
def test_classes_are_those_of_unique(generator, y):
    names, numbers = side(noise(generator, len(y), 5), np.array(y)).classes
    wanted = np.unique(np.array(y), return_inverse=True)
    assert names.tolist() == wanted[0].tolist() and numbers.tolist() == wanted[1].tolist()


def test_labels_are_compared_by_what_they_say(generator):
    X = noise(generator, 3, 5)
    texts = side(X, np.array(["1", "2", "10"])).answers
    assert (texts == side(X, np.array([1, 2, 10])).answers).all()
    assert (texts == side(X, np.array(["1", "2", "10"], dtype="<U40")).answers).all()


# --- copies -----------------------------------------------------------------------------------


def test_nothing_is_found_in_noise(generator):
    X, y = noise(generator, 300, 30, 2), generator.integers(0, 3, 300)
    assert codes(examples(X, y)) == []
    assert codes(examples(X[:200], y[:200]), examples(X[200:], y[200:])) == []


def test_the_same_sequence_on_both_sides(generator):
    X = noise(generator, 100, 30)
    findings = check(examples(X[:80]), examples(X[77:]))
    found = only(findings, "same-sequence")
    assert (found.severity, found.count) == ("serious", 3)
    assert found.places[0] == "test sequence 1 = training sequence 78"
    assert "3 of 23 (13 %) test sequences" in found.message


def test_few_short_coarse_sequences_on_both_sides_are_a_warning(generator):
    X = generator.integers(0, 10, (2000, 4, 1)).astype(np.float32)
    first = X[:1000]
    second = X[1000:][first_equal(side(first), side(X[1000:])) < 0]
    test = np.concatenate([second, first[:5]])
    assert only(check(examples(first), examples(test)), "same-sequence").severity == "warning"
    many = np.concatenate([second, first[:20]])
    assert only(check(examples(first), examples(many)), "same-sequence").severity == "serious"
    long = noise(generator, 1000, 30)
    test = np.concatenate([noise(generator, 900, 30), long[:1]])  # one, but never by chance
    assert only(check(examples(long), examples(test)), "same-sequence").severity == "serious"


def test_copies_in_one_file(generator):
    X = noise(generator, 100, 20)
    X[[40, 60, 80]] = X[3]
    found = only(check(examples(X)), "copies")
    assert (found.severity, found.count) == ("warning", 3)
    assert found.places[0] == "sequence 41 = sequence 4"
    X[90:] = X[:10]
    assert only(check(examples(X)), "copies").severity == "serious"
    groups = np.arange(100)
    groups[[40, 60, 80]], groups[90:] = groups[3], groups[:10]
    assert only(check(examples(X, groups=groups)), "copies").severity == "warning"
    assert only(check(examples(X), examples(noise(generator, 9, 20))), "copies").severity == "note"


@given(seed=st.integers(0, 10**6))
@draws(30)
def test_conflicting_labels_are_those_of_a_loop(seed):
    generator = np.random.default_rng(seed)
    X = generator.integers(0, 2, (30, 4, 1)).astype(np.float32)
    y = generator.choice(["a", "b", "c"], 30)
    members: dict = {}
    for x, label in zip(X, y, strict=True):
        members.setdefault(x.tobytes(), []).append(label)
    torn = [labels for labels in members.values() if len(set(labels)) > 1]
    findings = [f for f in check(examples(X, y)) if f.code == "conflicting-labels"]
    assert [f.count for f in findings] == [sum(map(len, torn))] * bool(torn)
    if torn:
        wrong = sum(len(labels) - Counter(labels).most_common(1)[0][1] for labels in torn)
        assert f"right about {wrong} of them" in findings[0].message


def test_conflicting_labels_name_both(generator):
    X, y = noise(generator, 60, 20), np.array(["up", "down"] * 30)
    X[7] = X[2]
    found = only(check(examples(X, y)), "conflicting-labels")
    assert found.places == ("sequence 8 (down) = sequence 3 (up)",)
    test = examples(X[[7, 9]], np.array(["down", "down"]))
    both = [f for f in check(examples(X[:7], y[:7]), test) if f.code == "conflicting-labels"]
    assert both[0].places == ("test sequence 1 (down) = training sequence 3 (up)",)


def test_conflicting_labels_of_steps(generator):
    X = noise(generator, 40, 6)
    X[9] = X[4]
    y = [np.array(["B", "I", "O"] * 2) for _ in range(40)]
    assert "conflicting-labels" not in codes(examples(X, y))
    y[9] = np.array(["O"] * 6)
    assert only(check(examples(X, y)), "conflicting-labels").count == 2


def test_groups_on_both_sides(generator):
    X = noise(generator, 40, 20)
    groups = np.repeat(["Ann", "Bob", "Cid", "Dee"], 10)
    train = examples(X[:25], groups=groups[:25])
    found = only(check(train, examples(X[25:], groups=groups[25:])), "same-group")
    assert (found.severity, found.count, found.places) == ("serious", 1, ("group 'Cid'",))
    assert "same-group" not in codes(
        examples(X[:20], groups=groups[:20]), examples(X[20:], groups=groups[20:])
    )


def test_names_on_both_sides(generator):
    X = noise(generator, 6, 20)
    train = examples(X[:4], ids=np.array(["Ann", "Bob", "Cid", "Dee"]))
    test = examples(X[4:], ids=np.array(["Eva", "Bob"]))
    found = only(check(train, test), "same-name")
    assert (found.severity, found.count, found.places) == ("warning", 1, ("test sequence 'Bob'",))
    assert "same-name" not in codes(examples(X[:4]), examples(X[4:]))  # numbered from 1, both


# --- windows ----------------------------------------------------------------------------------


def cut(series, n_steps, stride):
    starts = range(0, len(series) - n_steps + 1, stride)
    return np.stack([series[s : s + n_steps] for s in starts]).astype(np.float32)


SERIES = {
    "noise": lambda g, n: g.normal(size=(n, 1)),
    "walk": lambda g, n: g.normal(size=(n, 1)).cumsum(0),
    "whole numbers": lambda g, n: np.round(3 * g.normal(size=(n, 2)).cumsum(0)),
}


@pytest.mark.parametrize("kind", SERIES)
@pytest.mark.parametrize("stride", [16, 32, 64])
def test_windows_cut_with_overlap(generator, kind, stride):
    X = cut(SERIES[kind](generator, 128 + 99 * stride), 128, stride)
    found = only(check(examples(X)), "shared-windows")
    assert (found.severity, found.count) == ("serious", 100)
    order = generator.permutation(100)
    train, test = examples(X[order[:80]]), examples(X[order[80:]])
    found = only(check(train, test), "same-window")
    # Those whose two neighbours are both in the test part share nothing with training.
    alone = [
        i
        for i in order[80:]
        if not {i - k for k in (-3, -2, -1, 1, 2, 3) if abs(k) * stride <= 64} & set(order[:80])
    ]
    assert found.count >= 20 - len(alone) and found.severity == "serious"


@pytest.mark.parametrize("kind", SERIES)
def test_windows_cut_without_overlap(generator, kind):
    X = cut(SERIES[kind](generator, 128 * 100), 128, 128)
    assert "shared-windows" not in codes(examples(X))


def test_windows_of_one_group_may_overlap(generator):
    series = [cut(generator.normal(size=(512, 1)), 128, 64) for _ in range(10)]
    groups = np.repeat(np.arange(10), len(series[0]))
    X = np.concatenate(series)
    assert "shared-windows" not in codes(examples(X, groups=groups))
    assert "shared-windows" in codes(examples(X, groups=np.arange(len(X))))


def test_partners_do_share_the_window(generator):
    X = cut(generator.normal(size=(3000, 1)), 100, 30)
    whole = side(X)
    nobody = np.zeros(len(X), bool)
    shared = shared_windows(whole, whole, nobody, nobody)
    width = shared.width
    finding = only(check(examples(X)), "shared-windows")
    assert len({frozenset(place.split(" and ")) for place in finding.places}) == 3
    for i, j in zip(shared.sequences, shared.partners, strict=True):
        assert i != j
        stretches = {X[j, t : t + width].tobytes() for t in range(101 - width)}
        assert any(X[i, t : t + width].tobytes() in stretches for t in range(101 - width))


def no_windows():
    """What recurs in sequences that were not cut from one series."""
    g = np.random.default_rng(1)
    t = np.arange(96)
    phases = g.integers(0, 24, (400, 1))
    rare = g.random((400, 96)) < 0.05
    yield "hours of the day", np.stack([np.sin(2 * np.pi * (t + phases) / 24), rare], axis=-1)
    slow = np.sin(t / (10 + 10 * g.random((400, 1))) + 6 * g.random((400, 1)))
    drift = (0.05 * g.normal(size=(400, 96))).cumsum(axis=1)
    yield "a slow signal to one digit", np.round(20 + 5 * slow + drift, 1)[:, :, None]
    yield "padding", np.where(t[:, None] < g.integers(30, 90, (400, 1, 1)), noise(g, 400, 96), 0)
    plateaus = np.repeat(g.integers(0, 9, (400, 12)), 8, axis=1)
    end = np.sin(2 * np.pi * (np.arange(36) + phases) / 24)[:, :, None]
    yield "a clock at the end", np.concatenate([noise(g, 400, 60), end], axis=1)
    yield "plateaus", plateaus[:, :, None]
    text = np.frombuffer(datasets.austen()["Emma"].encode(), np.uint8)
    chunks = g.permutation(len(text) // 96)[:400]
    yield "text", np.stack([text[96 * i : 96 * i + 96] for i in chunks])[:, :, None]


@pytest.mark.parametrize(
    "what, X", list(no_windows()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_what_recurs_is_no_shared_window(what, X):
    assert "shared-windows" not in codes(examples(X))


def test_bits_of_noise_are_those_of_its_levels(generator):
    bits = step_bits(*[side(noise(generator, 400, 50))] * 2)[0].reshape(400, 50)
    levels = 2 ** round(np.log2(400 * 50) / 3)
    assert (bits[:, 0] == 0).all()
    assert np.log2(levels) - 0.3 < bits[:, 1:].mean() < np.log2(levels) + 1
    constant = step_bits(*[side(np.ones((20, 30, 2)))] * 2)[0]
    assert constant.max() < 0.1


DENSE = {
    "phases": lambda g, n, t: np.sin(t + 6.28 * g.random((n, 1))),
    "phases and sizes": lambda g, n, t: (
        (1 + g.random((n, 1))) * np.sin(t + 6.28 * g.random((n, 1)))
    ),
    "templates": lambda g, n, t: (
        g.normal(size=(5, 30))[g.integers(0, 5, n)] + 0.02 * g.normal(size=(n, 30))
    ),
    "scales": lambda g, n, t: np.exp(3 * g.normal(size=(n, 1))) * g.normal(size=(n, 30)),
    "offsets": lambda g, n, t: 100 * g.normal(size=(n, 1)) + g.normal(size=(n, 30)),
}


@pytest.mark.parametrize("kind", DENSE)
def test_dense_data_share_no_windows(generator, kind):
    X = DENSE[kind](generator, 1500, np.linspace(0, 6, 30))[:, :, None]
    assert "shared-windows" not in codes(examples(X))


# --- shortcuts --------------------------------------------------------------------------------


def with_labels(n=400):
    generator = np.random.default_rng(5)
    return noise(generator, n, 20, 2), generator.integers(0, 3, n), generator


def test_the_length_tells_the_label():
    X, y, g = with_labels()
    lengths = 8 + 3 * y + g.integers(0, 3, len(y))
    found = only(
        check(examples([x[:n] for x, n in zip(X, lengths, strict=True)], y)), "shortcut-length"
    )
    assert found.severity == "serious"
    assert found.places[0].startswith("length below 1")
    # The tree is right in all but rounding: lengths of classes do not meet.
    assert "100.0 %" in found.message or "99." in found.message


def test_a_faint_length_is_a_warning_and_none_is_nothing():
    X, y, g = with_labels()
    lengths = 8 + 2 * y + g.integers(0, 8, len(y))
    cut = [x[:n] for x, n in zip(X, lengths, strict=True)]
    assert only(check(examples(cut, y)), "shortcut-length").severity == "warning"
    cut = [x[:n] for x, n in zip(X, g.integers(5, 20, len(y)), strict=True)]
    assert "shortcut-length" not in codes(examples(cut, y))


@pytest.mark.parametrize("step, code", [(0, "shortcut-first-step"), (-1, "shortcut-last-step")])
def test_a_step_tells_the_label(step, code):
    X, y, _ = with_labels()
    X[:, step, 1] = y
    X[:, step, 1] += 0.1 * X[:, 5, 0]
    found = only(check(examples(X, y, features=("speed", "answer"))), code)
    assert found.severity == "serious"
    assert found.places[0].startswith("'answer' below")
    X[:, step, 1] = X[:, step, 0]
    assert code not in codes(examples(X, y))


def test_missing_values_tell_the_label():
    X, y, g = with_labels()
    X[g.random(X.shape) < 0.05] = np.nan
    assert "shortcut-missing" not in codes(examples(X, y))
    X[y == 2, 3:9, 1] = np.nan
    assert only(check(examples(X, y)), "shortcut-missing").severity == "warning"


def test_the_order_tells_the_label():
    X, y, _ = with_labels()
    assert "shortcut-order" not in codes(examples(X, y))
    found = only(check(examples(X, np.sort(y))), "shortcut-order")
    assert found.severity == "warning"  # a split at random is not harmed


def test_a_cue_of_groups_is_no_cue_of_labels():
    """Each group has a length and a label of its own: nothing carries over to new groups."""
    g = np.random.default_rng(6)
    groups = np.repeat(np.arange(60), 10)
    y, lengths = g.integers(0, 2, 60)[groups], g.integers(5, 40, 60)[groups]
    X = [g.normal(size=(n, 1)) for n in lengths]
    assert "shortcut-length" in codes(examples(X, y))
    assert "shortcut-length" not in codes(examples(X, y, groups=groups))


def test_a_cue_of_labels_within_few_groups_is_reported():
    g = np.random.default_rng(7)
    groups, y = np.repeat(np.arange(8), 20), np.tile([0, 1], 80)
    X = [g.normal(size=(n, 1)) for n in 10 + 4 * y + g.integers(0, 3, 160)]
    assert "shortcut-length" in codes(examples(X, y, groups=groups))
    assert "shortcut-length" not in codes(examples(X, g.permutation(y), groups=groups))


def test_permuted_labels_are_not_reported():
    """50 data sets of every cue without a relation: no finding (4 standard errors each)."""
    for seed in range(50):
        g = np.random.default_rng(seed)
        X = [g.normal(size=(n, 2)) for n in g.integers(3, 9, 60)]
        for x in X[::3]:
            x[g.integers(0, len(x)), 0] = np.nan
        y = (g.random(60) < 0.3).astype(int)
        assert not [c for c in codes(examples(X, y)) if "shortcut" in c]


def test_real_data():
    train, test = datasets.vowels()
    findings = check(Examples(*train), Examples(*test))
    assert {f.code for f in findings} == {
        "shortcut-first-step",
        "shortcut-last-step",
        "shortcut-order",
    }
    assert all(f.severity != "serious" for f in findings)


def test_infinite_and_missing_values_are_cues():
    """A value that is missing, infinite or too large for float32 where the label is 1."""
    for special in (np.nan, np.inf, 1e300):
        values, y = np.ones((60, 1)), np.arange(60) % 2
        values[y == 1] = special
        pairs = [(np.arange(40), np.arange(40, 60))]
        assert shortcuts._score(values, y, pairs) * 60 == 20
        cue = shortcuts.Cue("code", "what", values, ("x",), "")
        (asked,) = shortcuts._questions(cue, y)
        assert asked == "x missing" if np.isnan(special) else asked.startswith("x below ")


# --- contents ---------------------------------------------------------------------------------


def test_labels(generator):
    X = noise(generator, 100, 10)
    assert codes(examples(X, np.full(100, "a"))) == ["one-class"]
    assert "label-per-sequence" in codes(examples(X, np.arange(100)))
    found = only(check(examples(X, np.array(["a"] * 97 + ["b"] * 3))), "small-class")
    assert (found.count, found.places) == (1, ("class 'b': 3 sequences",))
    found = only(check(examples(X, np.array(["a"] * 92 + ["b"] * 8))), "imbalance")
    assert "92 of 100 (92 %) sequences have the label 'a'" in found.message
    assert "imbalance" not in codes(examples(X, np.array(["a"] * 89 + ["b"] * 11)))
    y = np.arange(100) % 2
    found = only(check(examples(X[:80], y[:80]), examples(X[80:], y[80:] + 1)), "unknown-label")
    assert (found.severity, found.count, found.places) == ("serious", 10, ("class 2",))


def test_numbers_to_predict_are_no_classes(generator):
    X = noise(generator, 60, 10)
    assert codes(examples(X, generator.normal(size=60))) == []
    assert codes(examples(X, [generator.normal(size=10) for _ in range(60)])) == []


def test_columns(generator):
    X = noise(generator, 50, 10, 5)
    X[:, :, 1] = 3
    X[:, :, 2] = np.nan
    X[4, 2, 3], X[7, 1, 4] = np.nan, -np.inf
    findings = check(examples(X, features=tuple("abcde")))
    assert only(findings, "constant-column").places == ("'b': 3",)
    assert only(findings, "empty-column").places == ("'c': 500 of 500 (100 %) missing",)
    missing = only(findings, "missing-values")
    assert (missing.count, missing.severity) == (501, "warning")
    assert "sequence 5, step 2, 'd'" not in missing.places  # column c comes first
    infinite = only(findings, "infinite-values")
    assert (infinite.severity, infinite.places) == ("serious", ("sequence 8, step 1, 'e'",))
    X[:, :, 2] = 0
    test = only(check(examples(noise(generator, 9, 10, 5)), examples(X)), "missing-values")
    assert test.places == ("test sequence 5, step 2, feature 3",)


def test_lengths(generator):
    X = [generator.normal(size=(n, 1)) for n in [*generator.integers(5, 15, 200), 1, 300]]
    findings = check(examples(X))
    assert only(findings, "one-step").places == ("sequence 201",)
    assert only(findings, "long-sequence").places == ("sequence 202: 300 steps",)
    X = [generator.normal(size=(min(n, 30), 1)) for n in generator.integers(10, 60, 200)]
    assert "exactly 30 steps" in only(check(examples(X)), "cut-sequence").message
    empty = Ragged(np.ones((4, 1)), [0, 2, 2, 4])
    assert only(check(examples(empty)), "empty-sequence").places == ("sequence 2",)


def test_times(generator):
    X = noise(generator, 20, 12)
    clock = np.datetime64("2024-03-01", "ns") + np.arange(12) * np.timedelta64(5, "m")
    times = [clock + i * np.timedelta64(7, "h") for i in range(20)]
    assert codes(examples(X, times=times)) == []
    times[3] = np.concatenate([times[3][:8], times[3][8:] + np.timedelta64(1, "h")])
    times[5] = times[5][0] + np.arange(12) * np.timedelta64(1, "h")
    findings = check(examples(X, times=times))
    gaps = only(findings, "gaps")
    assert (gaps.count, gaps.places) == (1, ("sequence 4, at 2024-03-01T22:40:00",))
    frequency = only(findings, "frequency")
    assert frequency.places == ("sequence 6: 1 h",)
    assert "most, 5 min" in frequency.message
    times[9] = times[9][::-1]
    assert only(check(examples(X, times=times)), "time-order").count == 11


def test_median_steps_are_those_of_a_loop(generator):
    sequence = np.sort(generator.integers(0, 9, 60))
    sequence[sequence == 4] = 5
    steps = generator.integers(1, 50, 60)
    wanted = [
        np.sort(steps[sequence == i])[(np.sum(sequence == i) - 1) // 2] if i in sequence else np.nan
        for i in range(9)
    ]
    np.testing.assert_array_equal(contents._medians(steps, sequence, 9), wanted)


def test_times_as_numbers_of_different_lengths(generator):
    X = [generator.normal(size=(n, 1)) for n in (1, 6, 9, 4)]
    times = [np.arange(n) * 2.0 for n in (1, 6, 9, 4)]
    times[2][5:] += 9
    assert only(check(examples(X, times=times)), "gaps").places == ("sequence 3, at 19.0",)


# --- check ------------------------------------------------------------------------------------


def test_serious_findings_come_first_and_are_json(generator):
    X = noise(generator, 100, 20, 2)
    X[:, :, 1] = 0
    findings = check(examples(X[:60]), examples(X[50:]))
    severities = [f.severity for f in findings]
    assert severities == sorted(severities, key=["serious", "warning", "note"].index)
    assert {"serious", "warning"} == set(severities)
    for finding in findings:
        assert set(finding.as_json()) == {
            "severity",
            "code",
            "message",
            "count",
            "places",
            "remedy",
        }
        assert 1 <= len(finding.places) <= 3
        assert type(finding.count) is int


def test_the_same_data_give_the_same_findings(generator):
    X, y = noise(generator, 300, 20), generator.integers(0, 2, 300)
    X[200:250] = X[:50]
    assert check(examples(X, y)) == check(examples(X, y)) != []


def test_x_and_y_are_enough(generator):
    X = noise(generator, 40, 20)
    assert [f.code for f in check(SimpleNamespace(X=X, y=np.zeros(40)))] == ["one-class"]
    assert check(SimpleNamespace(X=X)) == []


def test_refusals(generator):
    with pytest.raises(
        ValueError, match="the test part has 2 features a step, the training part 1"
    ):
        check(examples(noise(generator, 9, 5)), examples(noise(generator, 9, 5, 2)))
    with pytest.raises(ValueError, match="there are no sequences"):
        check(examples(np.zeros((0, 3, 1))))


def test_a_series_to_forecast_is_looked_at(generator):
    y = [generator.normal(size=30) for _ in range(40)]
    y[7] = y[3].copy()
    roles = Roles(target="sales", task="forecast")
    alone = Examples(np.zeros((40, 30, 0), np.float32), y, roles=roles)
    assert codes(alone) == ["copies"]
    y[9] = np.full(30, np.inf)
    places = only(check(Examples(alone.X, y, roles=roles)), "infinite-values").places
    assert places[0] == "sequence 10, step 0, 'sales'"
    X = noise(generator, 40, 30, 2)
    y[9] = y[8]
    beside = Examples(X, y, ("price", "sales"), roles=roles)  # named: the series is there already
    assert codes(beside) == []
    assert "copies" not in codes(Examples(X, y, ("price", "rain"), roles=roles))
    X[7], X[9] = X[3], X[8]
    assert only(check(Examples(X, y, ("price", "rain"), roles=roles)), "copies").count == 2


@pytest.mark.parametrize("seed", one_in(3, range(60)))
@pytest.mark.filterwarnings("error")
def test_odd_data_are_no_trouble(seed):
    g = np.random.default_rng(seed)
    n_features, parts = int(g.choice([1, 3])), []
    kind = seed % 6
    for _ in range(2):
        n = int(g.choice([1, 2, 30, 60]))
        lengths = g.integers(g.choice([0, 1, 5]), 12, n)
        values = g.normal(size=(lengths.sum(), n_features)).astype(np.float32)
        odd = [np.nan, np.inf, -np.inf, 0, 3e38, 1e-42][kind]
        values[g.random(values.shape) < g.choice([0.1, 0.5, 1])] = odd
        X = Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))
        y = [
            None,
            g.integers(0, 3, n),
            g.choice(["a", "b"], n),
            g.normal(size=n),
            [g.choice(["O", "B"], t) for t in lengths],
            [g.normal(size=t) for t in lengths],
        ][seed % 5 if seed < 30 else 5]
        times = [np.arange(t) * g.integers(1, 3) for t in lengths]
        groups = g.choice(["g", "h", "i"], n) if seed % 2 else None
        parts.append(Examples(X, y, times=times if seed % 3 else None, groups=groups))
    for findings in (check(parts[0]), check(*parts)):
        for finding in findings:
            assert finding.count >= 1 and len(finding.places) <= 3
            json.dumps(finding.as_json(), allow_nan=False)


@pytest.mark.parametrize("n, n_steps", [(1, 1), (2, 1), (1, 50), (30, 1), (3, 2)])
def test_little_data(generator, n, n_steps):
    X = noise(generator, n, n_steps)
    assert check(examples(X)) == []
    assert check(examples(X), examples(noise(generator, n, n_steps))) == []


def test_missing_values_everywhere(generator):
    X = np.full((40, 10, 2), np.nan, np.float32)
    found = codes(examples(X, np.arange(40) % 2))
    assert "empty-column" in found and "copies" in found


@pytest.mark.slow
def test_a_million_short_sequences_in_a_minute():
    import time

    g = np.random.default_rng(0)
    X, y = g.normal(size=(1_000_000, 10, 1)).astype(np.float32), g.integers(0, 5, 1_000_000)
    X[-1000:] = X[:1000]
    start = time.process_time()
    found = only(check(examples(X, y)), "copies")
    assert found.count == 1000
    assert time.process_time() - start < 60
