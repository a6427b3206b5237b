from __future__ import annotations

import string

import numpy as np
import pytest

from ostinato_learn.data.text.words import MOST_CHARACTERS, UNKNOWN, Integers, Words, WordVocabulary


def random_sentences(n: int = 40, seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcd"), rng.integers(1, 5))) for _ in range(25)]
    return [list(map(str, rng.choice(words, rng.integers(1, 8)))) for _ in range(n)]


def test_integers_are_taken_and_padded_like_lists():
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 9, rng.integers(0, 5)).tolist() for _ in range(12)]
    sequences = Integers.of(lists)
    assert len(sequences) == 12 and sequences.lengths.tolist() == list(map(len, lists))
    for chosen in ([3, 0, 11, 3], [], list(range(12))):
        chosen = np.array(chosen, dtype=np.int64)
        wanted = [lists[i] for i in chosen]
        assert [
            each.tolist() for each in map(sequences.take(chosen).__getitem__, range(len(chosen)))
        ] == wanted
        longest = max(map(len, wanted), default=0)
        padded = [each + [-1] * (longest - len(each)) for each in wanted]
        assert sequences.padded(chosen, -1).tolist() == padded


def test_words_are_the_sentences_again():
    sentences = random_sentences()
    words = Words.of(sentences)
    assert list(words.different) == sorted({word for s in sentences for word in s})
    chosen = words[np.array([7, 2])]
    for i, sentence in enumerate((sentences[7], sentences[2])):
        assert [words.different[j] for j in chosen.places[i]] == sentence
    for word, count in zip(words.different, words.counts, strict=True):
        assert count == sum(s.count(word) for s in sentences)
    assert chosen.counts.sum() == len(sentences[7]) + len(sentences[2])


def test_the_vocabulary_has_the_most_frequent_words_of_those_that_occur():
    sentences = random_sentences()
    words = Words.of([*sentences[:30], ["never", "seen"]])[np.arange(30)]
    flat = [word for s in sentences[:30] for word in s]
    by_count = sorted(set(flat), key=lambda word: (-flat.count(word), word))
    vocabulary = WordVocabulary.fit(words, 9)
    assert vocabulary.words == tuple(sorted(by_count[:8])) and vocabulary.n_words == 9
    assert WordVocabulary.fit(words, 1000).words == tuple(sorted(by_count))
    assert set(vocabulary.characters) == set("".join(flat))


def test_coded_words_are_the_words():
    sentences = random_sentences()
    vocabulary = WordVocabulary.fit(Words.of(sentences[:20]), 12)
    coded = vocabulary.code(Words.of([*sentences, ["ax", "a"]]))
    chosen = np.array([40, 3, 12])
    arrays = coded.arrays(chosen)
    picked = [["ax", "a"], sentences[3], sentences[12]]
    assert arrays.lengths.tolist() == list(map(len, picked))
    assert len(set(arrays.places[arrays.places > 0].tolist())) == len(arrays.words) - 1
    for row, sentence in enumerate(picked):
        for step, word in enumerate(sentence):
            i = arrays.places[row, step]
            number = arrays.words[i]
            known = word in vocabulary.words
            assert (vocabulary.words[number - 1] == word) if known else number == UNKNOWN
            letters = arrays.characters[i, : arrays.n_characters[i]]
            read = [vocabulary.characters[c - 1] if c else "?" for c in letters]
            assert "".join(read) == word.replace("x", "?")
            assert not arrays.characters[i, arrays.n_characters[i] :].any()
    flat = [word for s in [*sentences, ["ax", "a"]] for word in s]
    assert coded.n_unknown == sum(word not in vocabulary.words for word in flat) > 0


def test_a_long_word_is_read_at_its_ends_and_an_empty_one_is_unknown():
    long = string.ascii_letters
    coded = WordVocabulary.fit(Words.of([[long]]), 5).code(Words.of([[long, ""]]))
    by_word = dict(zip(("", long), map(coded.characters.__getitem__, range(2)), strict=True))
    characters = sorted(long)
    half = MOST_CHARACTERS // 2
    assert [characters[c - 1] for c in by_word[long]] == list(long[:half] + long[-half:])
    assert by_word[""].tolist() == [UNKNOWN]


def test_a_vocabulary_through_json():
    vocabulary = WordVocabulary.fit(Words.of(random_sentences()), 12)
    again = WordVocabulary.from_json(vocabulary.as_json(), "it")
    assert (again.words, again.characters) == (vocabulary.words, vocabulary.characters)
    for damaged in (None, {}, {"words": [1], "characters": ""}, {"words": [], "characters": 5}):
        with pytest.raises(ValueError, match="it is not a vocabulary"):
            WordVocabulary.from_json(damaged, "it")


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([], ValueError, "X has no examples"),
        ([["a"], []], ValueError, "example 1 of X has no steps; wanted a list of words"),
        ([["a"], "bc"], ValueError, "example 1 of X has the text 'bc'"),
        ([["a"], ["b", 5]], TypeError, "X has 5 at example 1, step 1; wanted a word"),
    ],
)
def test_what_is_no_word_is_named(X, error, message):
    with pytest.raises(error, match=message):
        Words.of(X)
