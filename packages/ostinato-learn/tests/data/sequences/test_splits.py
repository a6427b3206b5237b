"""Splits: exact shares, whole groups, time, columns, and nothing in two parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.splits import check_disjoint, folds, split
from zoo.suites import draws

THREE = {"train": 0.7, "validation": 0.1, "test": 0.2}


def sizes(parts):
    return {name: len(indices) for name, indices in parts.items()}


def overlap(parts):
    return sum(map(len, parts.values())) - len(set(np.concatenate(list(parts.values())).tolist()))


@given(
    n=st.integers(6, 60),
    seed=st.integers(0, 2**32 - 1),
    shares=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    n_classes=st.integers(1, 6),
)
@draws(100)
def test_every_sequence_is_in_one_part_and_every_class_has_its_share(n, seed, shares, n_classes):
    fractions = {f"part {i}": s / sum(shares) for i, s in enumerate(shares)}
    y = np.random.default_rng(seed).integers(0, n_classes, n)
    try:
        parts = split(n, fractions, seed, stratify=y)
    except ValueError as error:
        assert "has no sequences" in str(error)
        return
    assert np.sort(np.concatenate(list(parts.values()))).tolist() == list(range(n))
    for label in np.unique(y):
        total = (y == label).sum()
        assert (y[parts["part 0"]] == label).any()
        for name, fraction in fractions.items():
            came = (y[parts[name]] == label).sum()
            # Rounding, what the classes before it left, and the one that each part has at least.
            assert abs(came - fraction * total) < 1 + len(shares) + n_classes
            assert came > 0 or total < len(shares)


def test_large_classes_get_their_shares_to_within_one():
    y = np.repeat(list("abc"), [900, 90, 10])
    parts = split(1000, THREE, 3, stratify=y)
    for name, share in THREE.items():
        assert len(parts[name]) == round(1000 * share)
        for label, n in zip("abc", (900, 90, 10), strict=True):
            assert abs((y[parts[name]] == label).sum() - share * n) <= 1


def test_many_classes_of_two_have_one_in_each_part():
    """What they owe the larger part is not paid back one by one, which would take minutes."""
    y = np.arange(20_000) % 10_000
    parts = split(len(y), {"train": 0.8, "test": 0.2}, stratify=y)
    assert [sorted(y[part]) for part in parts.values()] == [list(range(10_000))] * 2


def test_without_classes_the_shares_are_exact():
    assert sizes(split(1000, THREE)) == {"train": 700, "validation": 100, "test": 200}
    assert sizes(split(7, 0.5)) in ({"train": 4, "test": 3}, {"train": 3, "test": 4})


def test_a_pure_function_of_the_seed():
    y, groups = np.arange(90) % 3, np.arange(90) // 5
    for more in ({}, {"stratify": y}, {"groups": groups}, {"groups": groups, "stratify": y}):
        one, again, other = (split(90, THREE, seed, **more) for seed in (1, 1, 2))
        assert all((one[name] == again[name]).all() for name in THREE)
        assert any(not np.array_equal(one[name], other[name]) for name in THREE)
        first, second = folds(90, 4, 1, **more), folds(90, 4, 1, **more)
        assert all((a[1] == b[1]).all() for a, b in zip(first, second, strict=True))


def test_a_class_of_one_is_learnt_from():
    y = ["a"] * 9 + ["only"]
    for seed in range(20):
        assert 9 in split(10, 0.5, seed, stratify=y)["train"]
    with pytest.raises(ValueError, match="the test part has no sequences"):
        split(4, 0.5, stratify=list("abcd"))


@given(seed=st.integers(0, 10**6), n_groups=st.integers(3, 40))
@draws(60)
def test_groups_stay_together(seed, n_groups):
    generator = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), generator.integers(0, n_groups, 200)])
    parts = split(len(groups), THREE, seed, groups=groups.astype(str))
    assert np.sort(np.concatenate(list(parts.values()))).tolist() == list(range(len(groups)))
    members = [set(groups[indices]) for indices in parts.values()]
    assert sum(map(len, members)) == n_groups
    largest = np.bincount(groups).max()
    for name, share in THREE.items():
        assert abs(len(parts[name]) - share * len(groups)) <= 1.5 * largest


def test_groups_with_classes_come_near_the_shares_of_every_class():
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 60, 3000)
    y = (generator.random(3000) < generator.random(60)[groups]).astype(int)  # a rate of each group
    parts = split(3000, 0.25, 5, groups=groups, stratify=y)
    assert y[parts["test"]].mean() == pytest.approx(y.mean(), abs=0.05)
    assert len(parts["test"]) == pytest.approx(750, abs=80)


def test_the_largest_group_is_learnt_from():
    groups = np.repeat([0, 1, 2, 3], [70, 10, 10, 10])
    for seed in range(10):
        parts = split(100, 0.3, seed, groups=groups)
        assert 0 in groups[parts["train"]]
        assert len(parts["test"]) == 30


def test_too_few_groups():
    with pytest.raises(ValueError, match="1 group for 2 parts"):
        split(4, 0.5, groups=["Ann"] * 4)


def test_examples_bring_their_groups_and_parts():
    groups = np.repeat(["Ann", "Bob", "Cid"], 4)
    examples = Examples(np.zeros((12, 5, 1), np.float32), groups=groups)
    parts = split(examples, 0.3)
    assert not set(groups[parts["train"]]) & set(groups[parts["test"]])
    for train, test in folds(examples, 3):
        assert not set(groups[train]) & set(groups[test])
    names = np.array(["train", "VAL ", "test", "train"])
    named = Examples(np.zeros((4, 5, 1), np.float32), parts=names)
    assert {k: v.tolist() for k, v in split(named).items()} == {
        "train": [0, 3],
        "validation": [1],
        "test": [2],
    }


def test_folds_test_every_sequence_once():
    y = np.arange(50) % 3
    for more in ({}, {"stratify": y}, {"groups": np.arange(50) // 4}):
        pairs = folds(50, 4, 7, **more)
        assert np.sort(np.concatenate([test for _, test in pairs])).tolist() == list(range(50))
        assert all(len(train) + len(test) == 50 for train, test in pairs)
    assert {len(test) for _, test in folds(50, 4, stratify=y)} <= {12, 13}


def test_classes_of_one_are_dealt_to_all_folds():
    tests = [len(test) for _, test in folds(40, 4, stratify=np.arange(40))]
    assert tests == [10, 10, 10, 10]


def test_a_column_that_divides_a_group_is_refused():
    with pytest.raises(ValueError, match="1 groups are in both train and test, such as 'Bob'"):
        split(3, ["train", "train", "test"], groups=["Ann", "Bob", "Bob"])


def test_check_disjoint_sees_a_shared_group():
    parts = {"train": np.array([0, 1]), "test": np.array([2])}
    check_disjoint(parts, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="such as 1; wanted each in one part: leave the groups"):
        check_disjoint(parts, np.array([0, 1, 1]))


@pytest.mark.parametrize(
    "arguments, more, message",
    [
        ((1,), {}, "there are 1 sequences"),
        ((9, {"train": 0.5, "test": 0.4}), {}, "train 0.5, test 0.4; wanted two or more above 0"),
        ((9, {"train": 1.0}), {}, "wanted two or more above 0 that add up to 1"),
        ((9, 1.5), {}, "the test part's share is 1.5"),
        ((3, ["train", "exam", "test"]), {}, "sequence 1 is in the part 'exam'"),
        ((3, ["test"] * 3), {}, "no sequence is in the part train; found test"),
        ((3, ["train", "test"]), {}, r"parts has the shape \[2\]; wanted \[3\]"),
        ((3,), {"groups": [1, 2]}, r"groups has the shape \[2\]; wanted \[3\]"),
    ],
)
def test_refusals(arguments, more, message):
    with pytest.raises(ValueError, match=message):
        split(*arguments, **more)


def test_refused_folds():
    with pytest.raises(ValueError, match="whole number from 2 on"):
        folds(9, 1)
