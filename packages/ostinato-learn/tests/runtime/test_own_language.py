"""A language model with a cell of a user's own: trained, saved, and asked without its source."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import saved_models as saved
import torch

import ostinato_learn
from ostinato_learn import runtime

TYPED = ("", "to b", "to be or", "to be", "to", "question q")


class Learnt(saved.Leaky):
    """A carry of two, in a dict, of which one begins as it was learnt."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__(n_features, hidden_size)
        self.first = torch.nn.Parameter(torch.linspace(-1, 1, hidden_size))

    def initial(self, x: Any) -> dict[str, Any]:
        zeros = x.new_zeros(len(x), len(self.first))
        return {"h": self.first.expand(len(x), -1), "sum": zeros}

    def forward(self, carry: Any, x: Any) -> Any:
        h, y = super().forward(carry["h"], x)
        total = 0.5 * carry["sum"] + y
        return {"h": h, "sum": total}, total


@pytest.fixture(scope="module", params=["Leaky", "Learnt, tied"])
def models(request, tmp_path_factory):
    """A fitted model, where it is saved, and it as the runtime reads it."""
    path = tmp_path_factory.mktemp("own") / "m"
    cell = saved.Leaky if request.param == "Leaky" else Learnt
    sizes = {"num_layers": 2, "tied": cell is Learnt, "iterations": 30, "truncate": 8}
    model = saved.language_model(path, cell=cell, batch_size=4, learning_rate=0.03, **sizes)
    return model, path, runtime.load(path)


def test_it_learns_and_its_measures_are_those_of_the_runtime(models):
    model, path, again = models
    texts = ["to be or not to be, that is the question"]
    ours, theirs = again.evaluate(texts), model.evaluate(texts)
    assert theirs["perplexity"] < 0.8 * theirs["vocabulary_size"]
    for name, value in theirs.items():
        # Probabilities of 41 tokens, each with some 16 ε of rounding (see test_saved_graph).
        assert ours[name] == pytest.approx(value, rel=1e-4), name
    assert runtime.verify(path).n_different == 0
    with pytest.raises(ValueError, match=r"is a user's own.*runtime\.load\("):
        ostinato_learn.load(path)


def test_it_completes_and_writes_the_same(models):
    model, _, again = models
    for typed in TYPED:
        found, wanted = again.suggest(typed), model.suggest(typed)
        assert found == wanted
    for seed in range(5):
        made = model.generate("to be", 60, seed=seed)
        assert again.generate("to be", 60, seed=seed) == made
    assert made.n_tokens > 1


def test_a_text_that_is_typed_key_by_key_is_read_as_a_whole(models):
    model, _, _ = models
    net, tokens = model.net_, model.vocabulary_.encode("to be or")
    with torch.no_grad():
        whole = net.logits(net(torch.tensor([[0, *tokens.tolist()]]))[0])[0]
    for n in (3, 5, 2, 8, 7):  # keys are taken back, too
        found = model._fitted()._after(tokens[:n])
        np.testing.assert_allclose(found, whole[n].log_softmax(0).numpy(), rtol=0, atol=1e-5)


def test_its_streams_give_what_the_whole_text_gives(models):
    _, _, again = models
    text = "to be"
    (wanted,) = again.predict_proba([text])
    stream = again.stream()
    answers = [stream.push(letter).proba for letter in text]
    np.testing.assert_array_equal(answers, wanted[1:])


@pytest.mark.process
def test_without_torch_it_writes_the_same_text(models):
    model, path, again = models
    script = f"""
        import json
        from ostinato_learn import runtime
        model = runtime.load({str(path)!r})
        made = model.generate("to be", 40, seed=3).text
        print(json.dumps([made, [s.probability for s in model.suggest("to b")]]))
    """
    made, shares = json.loads(saved.without_torch(script))
    assert made == model.generate("to be", 40, seed=3).text
    assert shares == [s.probability for s in again.suggest("to b")]
