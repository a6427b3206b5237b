"""Saved models as C: what a user gives, in; the probabilities of their labels, out."""

from __future__ import annotations

import numpy as np
import pytest
from c_examples import Library, needs_gcc
from onnx_models import classifier, language_model, preparation, tagger

import ostinato_learn.runtime
from ostinato.engine import native
from ostinato_learn.export.c import export_c
from ostinato_learn.export.c.selftest import as_read

pytestmark = [
    needs_gcc,
    pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine"),
]
# Answers between 0 and 1 of small networks: the bound that a self-test derives for them is about
# 2·10⁻⁵, see c_play.bound.
ATOL = 2e-5


def exported(model, place, **options):
    report = export_c(model, place / "net.c", **options)
    n_inputs = 0 if model.graph.embed else model.n_features
    return report, Library(place / "net.c", n_inputs, model.graph.n_outputs, report.state)


def sequence(n_steps=12, F=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n_steps, F)).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [{"C": 1, "cell": "rnn"}, {"several": True, "cell": "lstm", "readout": "max"}, {"members": 3}],
    ids=["one class", "several labels", "ensemble"],
)
def test_classifiers(options, tmp_path):
    model, x = classifier(**options), sequence()
    _, library = exported(model, tmp_path)
    expected = [model.predict_proba(x[None, : t + 1])[0] for t in range(len(x))]
    ours = library.stream().answers(x)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("missing", ["error", "mask", "fill", "forward"])
def test_a_user_s_input_is_prepared(missing, tmp_path):
    """Numbers far from zero, and words by their places; with gaps where the model allows them."""
    p = preparation(missing, far=1000)
    model = classifier(preparation=p, cell="gru", readout="mean")
    raw = np.stack([7000 + 2 * sequence()[:, 0], np.arange(12) % 4, 4 + 1e-3 * sequence()[:, 2]], 1)
    raw = raw.astype(np.float32)  # the word 3 was not trained
    known = raw.copy()
    known[:, 1] = np.where(raw[:, 1] == 3, np.nan, raw[:, 1])
    if missing != "error":
        for gaps in (raw, known):
            gaps[[0, 4, 5], 0] = gaps[[1, 4], 2] = np.nan
    _, library = exported(model, tmp_path)
    ours = library.stream().answers(raw)
    # A word that is unknown and one that is missing differ in the mask, and in what comes before.
    if missing in ("error", "fill"):
        read = as_read(p if missing == "fill" else preparation("fill", far=1000), known[None])
        expected = [model.network.answers(read[:, : t + 1])[0] for t in range(12)]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=ATOL)
    else:
        read = as_read(p, raw[None, :3])
        np.testing.assert_allclose(ours[2], model.network.answers(read)[0], rtol=0, atol=ATOL)
    header = (tmp_path / "net.h").read_text()
    assert "in[0]: height: a number" in header and "out[3]: the probability of 'class 3'" in header
    assert all(word in header for word in ("0 = blue", "1 = green", "2 = red"))
    assert ("NaN if missing" in header) == (missing != "error")


def test_taggers(tmp_path):
    model, x = tagger(bidirectional=False, crf=False, cell="lstm"), sequence()
    _, library = exported(model, tmp_path)
    ours = library.stream().answers(x)
    np.testing.assert_allclose(ours, model.predict_proba(x), rtol=0, atol=ATOL)
    with pytest.raises(ValueError, match="has a CRF, which labels a sequence as a whole"):
        export_c(tagger(bidirectional=False, crf=True), tmp_path / "crf.c")
    with pytest.raises(ValueError, match="also reads from the end"):
        export_c(tagger(bidirectional=True, crf=False), tmp_path / "both.c")
    assert not (tmp_path / "crf.c").exists() and not (tmp_path / "both.c").exists()


def test_taggers_of_words(tmp_path):
    """The numbers of words; letters are refused, since a program would have to spell."""
    words = [text.split() for text in ["to be or not", "that is", "be not that", "or to be"] * 4]
    tags = [["A" if len(word) > 2 else "B" for word in each] for each in words]
    sizes = {"hidden_size": 5, "iterations": 9, "embedding_size": 6, "bidirectional": False}
    for letters in (0, 4):
        estimator = ostinato_learn.SequenceTagger(**sizes, character_size=letters, random_state=0)
        estimator.fit(words, tags).save(tmp_path / str(letters))
    model = ostinato_learn.runtime.load(tmp_path / "0")
    _, library = exported(model, tmp_path)
    known = {word: i for i, word in enumerate(model.vocabulary.words, 1)}
    (header,) = [each.read_text() for each in tmp_path.rglob("*.h")]
    says = " ".join(header.split())
    assert all(f"{i} {word!r}" in says for word, i in known.items())
    assert "0 is any other word" in says
    text = ["that", "is", "nowhere", "to", "be"]
    ours = library.stream().answers(np.array([known.get(word, 0) for word in text]))
    np.testing.assert_allclose(ours, model.predict_proba([text])[0], rtol=0, atol=ATOL)
    with pytest.raises(ValueError, match="reads the letters of each word, which C code does not"):
        export_c(ostinato_learn.runtime.load(tmp_path / "4"), tmp_path / "letters.c")
    assert not (tmp_path / "letters.c").exists()


def test_language_models(tmp_path):
    model = language_model()
    _, library = exported(model, tmp_path)
    tokens = [0, *model.vocabulary.encode("abcab")]  # 0 begins a text
    ours = library.stream().answers(np.array(tokens))
    np.testing.assert_allclose(ours, model.predict_proba(["abcab"])[0], rtol=0, atol=ATOL)
