import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn import datasets
from ostinato_learn.data import Batches, Ragged
from ostinato_learn.data.sequences import batches as batches_module
from zoo.suites import draws


def numbered(n, batch_size, **options):
    """Batches whose examples and labels are their own positions."""
    return Batches(np.arange(n), np.arange(n), batch_size, **options)


sizes = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@draws()
@given(sizes, st.booleans(), st.integers(0, 2**40), st.integers(1, 30))
def test_the_stream_is_whole_epochs_end_to_end(size, shuffle, seed, n_batches):
    n, batch_size = size
    batches = numbered(n, batch_size, shuffle=shuffle, seed=seed)
    stream = []
    for _ in range(n_batches):
        X, y = batches.next_batch()
        assert len(X) == batch_size
        np.testing.assert_array_equal(X, y)
        stream += X.tolist()
        assert batches.epochs_completed == len(stream) // n
    epochs = [stream[i : i + n] for i in range(0, len(stream), n)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch)
        if len(epoch) == n:
            assert sorted(epoch) == list(range(n))
        if not shuffle:
            assert epoch == list(range(len(epoch)))


def test_epochs_are_shuffled_differently_and_by_seed():
    batches = numbered(50, 50)
    first, second = batches.next_indices().tolist(), batches.next_indices().tolist()
    assert first != list(range(50)) and first != second
    assert numbered(50, 50).next_indices().tolist() == first
    assert numbered(50, 50, seed=1).next_indices().tolist() != first


def test_an_order_is_a_fixed_function_of_seed_and_epoch():
    # Pinned: saved positions stay valid only as long as this does.
    assert numbered(8, 8, seed=3).next_indices().tolist() == [5, 3, 2, 6, 1, 0, 4, 7]


@draws()
@given(sizes, st.booleans(), st.integers(0, 9), st.integers(0, 30))
def test_a_restored_position_continues_exactly(size, shuffle, seed, n_before):
    n, batch_size = size
    one = numbered(n, batch_size, shuffle=shuffle, seed=seed)
    for _ in range(n_before):
        one.next_batch()
    saved = json.dumps(one.state_dict())
    wanted = [one.next_indices().tolist() for _ in range(15)]

    other = numbered(n, batch_size, shuffle=shuffle, seed=seed + 1)  # the seed comes with the state
    other.next_batch()
    other.load_state_dict(json.loads(saved))
    assert [other.next_indices().tolist() for _ in range(15)] == wanted
    assert other.epochs_completed == one.epochs_completed
    assert other.state_dict() == one.state_dict()


@draws()
@given(st.integers(7, 60), st.integers(1, 7), st.integers(0, 9))
def test_a_long_order_is_every_example_once_and_goes_on_anywhere(n, batch_size, seed):
    """Drawn a block at a time: two runs of three examples."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WHOLE": 6, "RUN": 3, "RUNS": 2}.items():
            patch.setattr(batches_module, name, value)
        one, other = (numbered(n, batch_size, seed=seed) for _ in range(2))
        stream = np.concatenate([one.next_indices() for _ in range(3 * n)])
        epochs = [stream[i * n : (i + 1) * n].tolist() for i in range(2)]
        assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
        assert n < 20 or (epochs[0] != epochs[1] and epochs[0] != sorted(epochs[0]))
        for _ in range(n):
            other.next_indices()
        saved = numbered(n, batch_size, seed=seed + 1)
        saved.load_state_dict(other.state_dict())
        assert saved.next_indices().tolist() == other.next_indices().tolist()
        assert sorted(np.concatenate([X for X, _ in one])) == list(range(n))


def test_the_state_is_small_whatever_the_data():
    batches = numbered(100_000, 128)
    batches.next_batch()
    assert len(json.dumps(batches.state_dict())) < 200


@pytest.mark.parametrize("shuffle", [True, False])
def test_iteration_gives_one_epoch_and_leaves_next_batch_alone(shuffle):
    batches, twin = numbered(10, 4, shuffle=shuffle), numbered(10, 4, shuffle=shuffle)
    for step in range(8):
        passed = [y for _, y in batches]
        assert [len(y) for y in passed] == [4, 4, 2]
        assert sorted(np.concatenate(passed)) == list(range(10))
        for _ in itertools.islice(batches, 1):  # a pass that is broken off
            assert batches.state_dict() == twin.state_dict()
        assert batches.next_indices().tolist() == twin.next_indices().tolist(), step


def test_each_pass_has_a_new_order_and_passes_may_overlap():
    batches = numbered(50, 50)
    (_, first), (_, second) = next(iter(batches)), next(iter(batches))
    assert first.tolist() != second.tolist()
    pairs = list(zip(numbered(9, 2), numbered(9, 2, shuffle=False), strict=True))
    assert len(pairs) == 5
    both = numbered(9, 2)
    left, right = zip(*((a[1], b[1]) for a, b in zip(both, both, strict=True)), strict=True)
    for side in (left, right):
        assert sorted(np.concatenate(side)) == list(range(9))


def test_ragged_batches():
    X = Ragged.from_list([np.full(i + 1, i) for i in range(5)])
    batches = Batches(X, np.arange(5), 3)
    for X_b, y_b in [batches.next_batch(), batches.next_batch(), *batches]:
        assert isinstance(X_b, Ragged)
        assert [x.ravel().tolist() for x in X_b] == [[i] * (i + 1) for i in y_b]


def test_labels_of_any_kind_and_axes():
    X, names, targets = np.arange(4), np.array(["a", "b", "c", "d"]), np.arange(8.0).reshape(4, 2)
    X_b, y_b = Batches(X, names, 3).next_batch()
    assert y_b.tolist() == names[X_b].tolist()
    X_b, y_b = Batches(X, targets, 3).next_batch()
    np.testing.assert_array_equal(y_b, targets[X_b])


def test_one_hot():
    labels = np.array([2, 0, 3, 2, 0])
    batches = Batches(np.arange(5), labels, 4, one_hot=True)
    for X_b, y_b in [batches.next_batch(), *batches]:
        assert y_b.dtype == np.float32 and y_b.shape == (len(X_b), 4)
        np.testing.assert_array_equal(y_b, np.eye(4)[labels[X_b]])


def test_a_batch_is_a_copy_of_its_own():
    X = np.zeros((6, 2))
    batches = Batches(X, np.zeros(6), 2, shuffle=False)
    X_b, _ = batches.next_batch()
    X_b += 1
    batches.next_indices()[:] = 0
    assert not X.any()
    assert [batches.next_indices().tolist() for _ in range(2)] == [[4, 5], [0, 1]]
    assert batches.next_indices().dtype == np.int64


class _Watched(np.ndarray):
    """An array that counts the examples taken out of it."""

    taken = 0

    def __getitem__(self, index):
        _Watched.taken += np.size(index)
        return super().__getitem__(index)


def test_a_batch_touches_its_own_examples_only():
    batches = numbered(1000, 10)
    batches.X = batches.X.view(_Watched)
    batches.next_batch()
    assert _Watched.taken == 10


def test_mnist_reads_through():
    X, y = datasets.mnist().test
    batches = Batches(X, y, 128, one_hot=True)
    wanted = np.bincount(y), X.sum(0, np.float64)

    labels, image = np.zeros(10), np.zeros((28, 28))
    for _ in range(8 * 10_000 // 128):  # eight epochs exactly
        X_b, y_b = batches.next_batch()
        assert X_b.shape == (128, 28, 28) and X_b.dtype == np.float32
        labels += y_b.sum(0)
        image += X_b.sum(0, np.float64)
    assert batches.epochs_completed == 8
    np.testing.assert_array_equal(labels, 8 * wanted[0])
    np.testing.assert_allclose(image, 8 * wanted[1], rtol=1e-12)

    np.testing.assert_array_equal(sum(y_b.sum(0) for _, y_b in batches), wanted[0])


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        (np.zeros(5), np.zeros(4), {}, "X has 5 examples and y has 4"),
        (Ragged.from_list([[1], [2]]), np.zeros(3), {}, "X has 2 examples and y has 3"),
        (np.zeros(5), 3, {}, r"y is array\(3\); wanted an array"),
        (np.zeros(0), np.zeros(0), {}, "no examples"),
        ([[1, 2], [3]], [0, 1], {}, "as_sequences"),
        (np.zeros(5), np.zeros(5), {"batch_size": 6}, "batch_size is 6 and there are 5 examples"),
        (np.zeros(5), np.zeros(5), {"batch_size": 0}, "batch_size is 0"),
        (np.zeros(5), np.zeros(5), {"seed": -1}, "seed is -1"),
        (np.zeros(2), np.array([0.0, 1.0]), {"one_hot": True}, r"y is float64\[2\]"),
        (np.zeros(2), np.array([True, False]), {"one_hot": True}, r"y is bool\[2\]"),
        (np.zeros(2), np.array(["a", "b"]), {"one_hot": True}, r"y is <U1\[2\]"),
        (np.zeros(2), np.array([0, -1]), {"one_hot": True}, "integers with -1 among them"),
        (np.zeros(2), np.array([[0], [1]]), {"one_hot": True}, r"y is int64\[2, 1\]"),
    ],
)
def test_refuses(X, y, options, message):
    with pytest.raises(ValueError, match=message):
        Batches(X, y, **{"batch_size": 1, **options})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_examples": 11}, "n_examples = 11, this object has 10"),
        ({"batch_size": 3}, "batch_size = 3, this object has 4"),
        ({"shuffle": False}, "shuffle = False, this object has True"),
        ({"position": 10}, "position 10; wanted 0 to 9"),
    ],
)
def test_refuses_the_state_of_other_data(change, message):
    batches = numbered(10, 4)
    with pytest.raises(ValueError, match=message):
        batches.load_state_dict({**batches.state_dict(), **change})
    with pytest.raises(ValueError, match="lacks position, seed"):
        batches.load_state_dict(
            {"n_examples": 10, "batch_size": 4, "shuffle": True, "epochs_completed": 0}
        )
