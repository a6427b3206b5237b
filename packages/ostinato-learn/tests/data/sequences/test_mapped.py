"""Values at each step of sequences on disk are those of sequences in memory, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn.data.sequences.labels import LabelEncoder
from ostinato_learn.data.sequences.mapped import GrowingArray, Series, is_mapped
from ostinato_learn.data.sequences.step_labels import CodedLabels, encoded, label_counts
from ostinato_learn.data.text import words as words_module
from ostinato_learn.data.text.words import CodedWords, Integers, Words, WordVocabulary

LENGTHS = np.array([3, 1, 5, 2, 4])
NUMBERS = np.array([0, 2, 1, 1, 0, 0, 2, 2, 1, 0, 1, 2, 2, 0, 1])


def on_disk(values: np.ndarray) -> np.ndarray:
    file = GrowingArray(values.dtype)
    file.append(values[:4])
    file.append(values[4:])
    return file.mapped()


@pytest.fixture(params=[1, 7, 1 << 20])
def stored(request, monkeypatch):
    monkeypatch.setattr(words_module, "AT_ONCE", request.param)
    starts = np.cumsum(LENGTHS) - LENGTHS
    return Integers(on_disk(NUMBERS.astype(np.int32)), LENGTHS, starts)


def labels_in(stored, names=("a", "b", "c")):
    classes = np.array(names)
    found = CodedLabels(stored.stored, stored.lengths, stored.starts, classes)
    return found, np.split(classes[NUMBERS], np.cumsum(LENGTHS)[:-1])


SERIES = {
    "numbers": np.array([0.1, np.nan, -0.0, 1e300, 5e-324, 2**53 + 1, np.pi, -7]),
    "dates": (np.arange(8) * 10**17 + 123_456_789).astype("M8[ns]"),
}


@pytest.mark.parametrize("kind", SERIES)
def test_numbers_and_times_are_what_was_written(kind):
    lengths = np.array([3, 1, 4])
    wanted = np.split(SERIES[kind], [3, 4])
    found = Series(on_disk(SERIES[kind]), lengths)
    assert is_mapped(found.stored) and len(found) == 3
    assert [each.tobytes() for each in found] == [each.tobytes() for each in wanted]
    some = found.take(np.array([2, 0]))
    assert some.stored is found.stored and some[0].dtype == wanted[0].dtype
    assert [each.tobytes() for each in some] == [wanted[i].tobytes() for i in (2, 0)]


def test_integers(stored):
    memory = Integers(NUMBERS, LENGTHS)
    chosen = np.array([4, 0, 4, 2])
    for one, other in ((stored, memory), (stored.take(chosen), memory.take(chosen))):
        assert one.values.tolist() == other.values.tolist()
        assert one.lengths.tolist() == other.lengths.tolist()
        assert one.counts(4).tolist() == other.counts(4).tolist()
        assert [one[i].tolist() for i in range(4)] == [other[i].tolist() for i in range(4)]
    assert stored.padded(chosen, -1).tolist() == memory.padded(chosen, -1).tolist()
    table = np.array([5, 4, 9])
    assert Integers(stored.stored, LENGTHS, stored.starts, table).take(chosen).values.tolist() == [
        table[n] for n in memory.take(chosen).values
    ]


def test_words(stored):
    different = ("be", "not", "to")
    memory, words = (Words(different, each) for each in (Integers(NUMBERS, LENGTHS), stored))
    assert words.counts.tolist() == memory.counts.tolist()
    vocabulary = WordVocabulary.fit(words, size=3)
    assert vocabulary.as_json() == WordVocabulary.fit(memory, size=3).as_json()
    one, other = vocabulary.code(words), vocabulary.code(memory)
    assert isinstance(one, CodedWords) and is_mapped(one.places.stored)
    assert one.n_unknown == other.n_unknown == 5
    for a, b in zip(
        one.arrays(np.array([3, 1, 2])), other.arrays(np.array([3, 1, 2])), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_labels(stored):
    labels, memory = labels_in(stored)
    assert len(labels) == 5 and labels[2].tolist() == memory[2].tolist()
    assert [each.tolist() for each in labels] == [each.tolist() for each in memory]
    assert [each.tolist() for each in labels[1:4]] == [each.tolist() for each in memory[1:4]]
    assert labels[0:0] == [] == list(labels.take(np.arange(0)))
    some = labels.take(np.array([1, 3]))
    assert [each.tolist() for each in some] == [["b"], ["a", "b"]]
    for one, other in zip(label_counts(some), label_counts([memory[1], memory[3]]), strict=True):
        assert one.tolist() == other.tolist()


def test_labels_as_class_numbers(stored):
    """Those of a part are its own: a label that it lacks is not one of its classes."""
    labels, memory = labels_in(stored)
    chosen = np.array([1, 3])
    for y, given in ((labels, memory), (labels.take(chosen), [memory[1], memory[3]])):
        encoder, numbers = encoded(y, y.lengths)
        wanted, others = encoded(given, y.lengths)
        assert encoder.classes.tolist() == wanted.classes.tolist()
        assert encoder.classes.dtype == wanted.classes.dtype
        assert numbers.values.tolist() == others.values.tolist()
    with pytest.raises(ValueError, match="the label 'c', which was not trained"):
        encoded(labels, LENGTHS, encoder=LabelEncoder(np.array(["a", "b"])))


def test_labels_of_a_scheme_become_iob2(stored):
    names = np.array(["O", "U-PER", "O"])
    labels, memory = labels_in(stored, names)
    encoder, numbers = encoded(labels, LENGTHS, "bilou")
    wanted, others = encoded(memory, LENGTHS, "bilou")
    assert encoder.classes.tolist() == wanted.classes.tolist() == ["B-PER", "O"]
    assert numbers.values.tolist() == others.values.tolist()
    labels, memory = labels_in(stored, ["O", "L-PER", "O"])
    for y in (labels, memory):
        with pytest.raises(ValueError, match="'L-PER' at step 2 belongs to no span"):
            encoded(y, LENGTHS, "bilou")
