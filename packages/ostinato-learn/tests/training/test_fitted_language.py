"""`LanguageModel`: fit, suggest, generate, save and load; no scikit-learn."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_checkpoint import KillAfter, Killed

from ostinato_learn.data.text.vocabulary import END, UNKNOWN
from ostinato_learn.models.saved_model import load, save
from ostinato_learn.tasks.language.fit import Reading, fit
from ostinato_learn.tasks.language.model import LanguageModel
from ostinato_learn.tasks.language.net import LanguageArchitecture
from ostinato_learn.training import Checkpoint, Plan

TEXTS = ["the cat sat on the mat. " * 6, "a dog and a cat, a dog and a man. " * 6, "the end."]


def fitted(level="character", iterations=40, texts=TEXTS, **options) -> LanguageModel:
    architecture = {"cell": "lstm", "hidden_size": 16, "embedding_size": 8}
    plan = {"batch_size": 4, "optimizer": "adamw", "learning_rate": 0.02, "clip_norm": 1.0}
    plan["truncate"] = 12
    keywords = {
        k: options.pop(k) for k in ("validation", "callbacks", "resume", "start") if k in options
    }
    if level == "piece":
        pytest.importorskip("tokenizers")
        options.setdefault("vocabulary_size", 280)
    for group in (architecture, plan):
        group |= {name: options.pop(name) for name in list(options) if name in group}
    reading = Reading(level=level, **options)
    model, _ = fit(
        texts,
        LanguageArchitecture(**architecture),
        reading,
        Plan(iterations=iterations, **plan),
        **keywords,
    )
    return model


@pytest.mark.parametrize("level", ["character", "word", "piece"])
def test_it_learns_and_comes_back_from_a_file(level, tmp_path):
    model = fitted(level)
    result = model.evaluate(TEXTS)
    assert result["loss"] < 0.5 * math.log(len(model.vocabulary))
    save(model, tmp_path / "m", {"level": level}, 40)
    again = load(tmp_path / "m")
    assert again.evaluate(TEXTS) == result
    assert again.suggest("the ca") == model.suggest("the ca")
    for temperature in (0.0, 0.7):
        made = model.generate("a dog", 30, temperature=temperature, seed=1)
        assert again.generate("a dog", 30, temperature=temperature, seed=1) == made
    save(again, tmp_path / "again", {"level": level}, 40)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "m" / name).read_bytes()


def test_a_damaged_file_is_refused(tmp_path):
    model = fitted(iterations=1)
    save(model, tmp_path / "m", {}, 1)
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    for change, message in [
        ({"strings": ["a"]}, "has 3 tokens for a network of 16; the file is damaged"),
        ({"strings": ["ab"]}, "texts that are not single"),
    ]:
        config["fitted"]["vocabulary"] = {"level": "character"} | change
        file.write_text(json.dumps(config))
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "m")


def test_the_same_seed_gives_the_same_bits_and_a_killed_run_goes_on(tmp_path):
    def weights(model):
        return [w.numpy().tobytes() for w in model.net.state_dict().values()]

    whole = fitted(iterations=8)
    assert weights(fitted(iterations=8)) == weights(whole)
    with pytest.raises(Killed):
        fitted(iterations=8, callbacks=[Checkpoint(tmp_path, every=2), KillAfter(5)])
    assert weights(fitted(iterations=8, resume=tmp_path)) == weights(whole)


def test_streams_are_no_more_than_chunks():
    seen = []

    class Look(Checkpoint):
        def on_start(self, run):
            seen.append((run.plan.batch_size, run.task.streams.n_streams))

        on_iteration = on_end = on_start

    fitted(iterations=1, texts=["abcdefgh" * 3], truncate=12, callbacks=[Look("unused")])
    fitted(iterations=1, texts=["abc"], truncate=12, callbacks=[Look("unused")])
    assert set(seen) == {(2, 2), (1, 1)}


def test_it_goes_on_from_a_fitted_model():
    first = fitted(iterations=20)
    warm = fitted(iterations=1, start=first, learning_rate=1e-6)
    assert warm.evaluate(TEXTS)["loss"] == pytest.approx(first.evaluate(TEXTS)["loss"], rel=1e-3)
    for options, message in [
        ({"hidden_size": 3}, "hidden_size=16, not 3"),
        ({"level": "word"}, "level='character', not 'word'"),
    ]:
        with pytest.raises(ValueError, match=message):
            fitted(iterations=1, start=first, **options)


def test_a_typing_session_answers_as_the_whole_text_does():
    model = fitted(iterations=5)
    read, ask = [], model.network.read
    model.network.read = lambda tokens, *more: read.append(tokens.shape[1]) or ask(tokens, *more)
    texts = ["", "t", "th", "the", "the cat", "the", "them", "a dog", "a do", "a do", "", "the"]
    for text in texts:
        tokens = model.vocabulary.encode(text)
        with torch.no_grad():
            features, _ = model.net(torch.tensor([[END, *tokens]]), None)
        wanted = torch.softmax(model.net.logits(features[0, -1]), 0).detach().numpy()
        np.testing.assert_allclose(np.exp(model._after(tokens)), wanted, rtol=1e-5)
    # END, t, h, e, " cat"; "the" from the start; m; …
    assert read == [1, 1, 1, 1, 4, 4, 1, 6, 5, 1, 3]


def test_suggestions_complete_a_word():
    model = fitted("word", iterations=60)
    texts = [s.text for s in model.suggest("the ")]
    assert len(texts) == 3 and not {".", ","} & set(texts)
    (best, *_) = model.suggest("the c")
    assert best.text == "cat" and best.probability == pytest.approx(1)
    assert model.suggest("the xyz") == []
    assert [s.text for s in model.suggest("the", 1)] == ["the"]
    whole = model.suggest("a ", 100)
    assert sum(s.probability for s in whole) == pytest.approx(1)
    assert [s.probability for s in whole] == sorted((s.probability for s in whole), reverse=True)
    assert len(fitted(iterations=1).suggest("", 100)) == 14  # characters


def test_generated_texts():
    model = fitted(iterations=60)
    one, other = (model.generate("the", 60, seed=seed) for seed in (0, 1))
    assert one == model.generate("the", 60, seed=0) != other
    assert model.generate("the", 60, top_k=1, seed=5) == model.generate("the", 60, temperature=0)
    assert one.n_tokens == len(one.text) <= 60
    with torch.no_grad():
        model.net.readout.bias[END] = 1e4
    assert model.generate("the", 60) == type(one)("", 0)
    with torch.no_grad():
        model.net.readout.bias[END] = -1e4
        model.net.readout.bias[UNKNOWN] = 1e4
    assert "�" not in model.generate("the", 60).text
    for arguments, message in [
        ({"n": 0}, "n=0; wanted 1 or more"),
        ({"top_k": 0}, "top_k=0; wanted 1"),
        ({"temperature": -0.1}, r"temperature=-0\.1; wanted 0 or more"),
        ({"temperature": float("nan")}, "temperature=nan; wanted 0 or more"),
        ({"temperature": float("inf")}, "temperature=inf; wanted 0 or more, and finite"),
        ({"top_p": 0.0}, r"top_p=0\.0; wanted a share above 0"),
        ({"top_p": 1.1}, r"top_p=1\.1; wanted a share above 0, 1 at most"),
        ({"seed": -1}, "seed=-1; wanted 0 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.generate(**arguments)


def test_words_go_on_after_the_prompt_with_a_blank():
    model = fitted("word", iterations=60)
    assert model.generate("the", 3, temperature=0).text == " cat sat on"
    assert model.generate("", 2, temperature=0).text[:1] != " "


def test_bad_documents_are_named():
    for texts, error, message in [
        ("one text", TypeError, "X is str; wanted a list of texts"),
        ({"a title": "a text"}, TypeError, r"X is a mapping; .* list\(X\.values\(\)\)"),
        (np.array([["a"], ["b"]]), TypeError, "X is ndarray; wanted a list of texts"),
        (iter("ab"), TypeError, "wanted a list of texts"),
        (["a", 3], TypeError, r"X\[1\] is int; wanted a text"),
        ([], ValueError, "X has 0 documents without a character"),
        (["", ""], ValueError, "X has 2 documents without a character"),
    ]:
        with pytest.raises(error, match=message):
            fitted(texts=texts)
    with pytest.raises(TypeError, match=r"validation\[0\] is int"):
        fitted(validation=[3])
    with pytest.raises(ValueError, match="level='line': wanted one of"):
        fitted("line")


def test_the_validation_documents_are_measured():
    seen = []

    class Look(Checkpoint):
        def on_report(self, run, report):
            seen.append(report)

        on_start = on_iteration = on_end = lambda *_: None

    model = fitted(iterations=3, validation=["a cat sat"], callbacks=[Look("unused")])
    result = model.evaluate(["a cat sat"])
    last = min(seen, key=lambda report: report["validation_loss"])
    for name in ("loss", "bits_per_character", "perplexity"):  # of logits, and of probabilities
        assert last[f"validation_{name}"] == pytest.approx(result[name], rel=1e-6)


@pytest.mark.slow
@pytest.mark.process
def test_it_needs_no_scikit_learn(tmp_path):
    save(fitted(iterations=1), tmp_path / "m", {}, 1)
    script = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from ostinato_learn.models.saved_model import load\n"
        f"print(load({str(tmp_path / 'm')!r}).generate('the', 5).n_tokens)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
