"""The task of predicting the next token: its batches, its state, its measures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_checkpoint import KillAfter, Killed
from training_examples import Remembering, assert_same_end

from ostinato_learn.data.text.corpus import Corpus
from ostinato_learn.data.text.vocabulary import END, UNKNOWN, Vocabulary
from ostinato_learn.models import LanguageNet
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.tasks.language import model as language
from ostinato_learn.tasks.language.loss import Language, answers
from ostinato_learn.tasks.language.model import LanguageModel
from ostinato_learn.training import Checkpoint, Plan
from ostinato_learn.training.checkpoint import read
from ostinato_learn.training.loop import learn
from zoo.suites import one_in


def measure(net: LanguageNet, vocabulary: Vocabulary, documents: list[str]) -> SimpleNamespace:
    model = LanguageModel(network=ModuleNetwork(net), vocabulary=vocabulary)
    return SimpleNamespace(**model.evaluate(documents))


TEXTS = ["the cat sat on the mat. " * 3, "a dog, and a cat! " * 4, "", "the end"]


@dataclass
class Experiment:
    """A small training, built anew for every run."""

    cell: Any = "lstm"
    net: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)

    def run(self, **options: Any):
        vocabulary = Vocabulary.fit(TEXTS, "character")
        torch.manual_seed(1)
        arguments = {"hidden_size": 5, "num_layers": 2, "dropout": 0.3, "embedding_size": 4}
        net = LanguageNet(len(vocabulary), self.cell, **arguments | self.net)
        settings = {"iterations": 12, "optimizer": "adamw", "learning_rate": 0.02, "clip_norm": 1.0}
        plan = Plan(batch_size=3, eval_every=4, **settings | self.plan)
        task = Language(Corpus.of(TEXTS, vocabulary), vocabulary, 3, 7, TEXTS[:2])
        return net, learn(net, task, plan, **options)


@pytest.mark.parametrize(
    "experiment",
    one_in(
        3,
        [
            Experiment(),
            Experiment("gru", net={"num_layers": 1, "embedding_size": 0}),
            Experiment("rnn", net={"tied": True}),
            Experiment(Remembering),
        ],
    ),
    ids=lambda e: e.cell,
)
def test_a_run_killed_anywhere_and_resumed_ends_with_the_same_bits(experiment, tmp_path):
    whole = experiment.run(callbacks=[Checkpoint(tmp_path / "whole")])
    for after in (1, 2, 5, 11):
        place = tmp_path / str(after)
        with pytest.raises(Killed):
            experiment.run(callbacks=[Checkpoint(place, every=2), KillAfter(after)])
        assert_same_end(experiment.run(callbacks=[Checkpoint(place)], resume=place), whole)
        ours, theirs = read(place)[1], read(tmp_path / "whole")[1]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert "task.carry.0" in theirs


@pytest.mark.parametrize("forgotten", ["load_tensors", "load_state_dict"])
def test_the_test_above_would_show_a_state_that_was_forgotten(forgotten, tmp_path, monkeypatch):
    whole = Experiment().run()
    with pytest.raises(Killed):
        Experiment().run(callbacks=[Checkpoint(tmp_path, every=5), KillAfter(5)])
    monkeypatch.setattr(Language, forgotten, lambda *_: None)
    with pytest.raises(AssertionError):
        assert_same_end(Experiment().run(resume=tmp_path), whole)


def test_other_documents_are_refused(tmp_path, monkeypatch):
    Experiment().run(callbacks=[Checkpoint(tmp_path)])
    monkeypatch.setattr("test_language_task.TEXTS", [*TEXTS, "tea"])
    with pytest.raises(ValueError, match="n_tokens="):
        Experiment(net={}).run(resume=tmp_path)


def test_losses_are_those_of_whole_documents():
    """The state is carried over chunks and reset between documents: one stream's mean loss over an
    epoch is the loss over the documents, each read alone from its beginning."""
    vocabulary = Vocabulary.fit(TEXTS, "character")
    torch.manual_seed(0)
    net = LanguageNet(len(vocabulary), "gru", 5).double()
    corpus = Corpus.of(TEXTS, vocabulary)
    length = next(n for n in range(4, len(corpus)) if len(corpus) % n == 0)
    task = Language(corpus, vocabulary, 1, length)
    n_chunks = len(corpus) // length
    assert n_chunks == task.n_examples > 1
    for _ in range(2):  # round the ring, too
        losses = [task.loss(net).loss.item() for _ in range(n_chunks)]
        assert np.mean(losses) == pytest.approx(slow_nats(net, vocabulary, TEXTS) / len(corpus))


class Gru(torch.nn.GRUCell):
    """The cell of a user who has PyTorch's."""

    def forward(self, h, x):
        return super().forward(x, h)


@pytest.mark.parametrize("variant", one_in(2, [{}, {"tied": True}, {"embedding_size": 0}]), ids=str)
def test_a_user_s_gru_learns_what_the_gru_learns(variant):
    """Updates, the state between batches, its resets and the measures, in float64."""
    vocabulary = Vocabulary.fit(TEXTS, "character")
    found = []
    for cell in (Gru, "gru"):
        torch.manual_seed(1)
        sizes = {"hidden_size": 5, "num_layers": 2, "embedding_size": 4} | variant
        theirs = LanguageNet(len(vocabulary), "gru", **sizes).double()
        net = LanguageNet(len(vocabulary), cell, **sizes).double()
        weights = {name: net.state_dict().get(name) for name in theirs.state_dict()}
        if cell is Gru:
            cells = enumerate(net.body.cells)
            weights |= {f"body.{n}_l{i}": w for i, c in cells for n, w in c.state_dict().items()}
        for name, weight in theirs.state_dict().items():
            weights[name].copy_(weight)
        task = Language(Corpus.of(TEXTS, vocabulary), vocabulary, 3, 7, TEXTS[:2])
        plan = Plan(12, batch_size=3, eval_every=1, optimizer="sgd", learning_rate=0.5)
        reports = learn(net, task, plan).reports
        numbers = [r[name] for r in reports for name in ("train_perplexity", "validation_loss")]
        found.append([*numbers, *vars(measure(net, vocabulary, TEXTS)).values()])
    # Sums of some 10 products, in another order: a few ε, which 12 updates pass on.
    np.testing.assert_allclose(*found, rtol=1e-12)
    assert found[0][22] < found[0][0] - 0.1  # it learns, so that its updates are compared


def test_a_gradient_ends_where_the_chunk_begins():
    vocabulary = Vocabulary.fit(TEXTS, "character")
    task = Language(Corpus.of(TEXTS, vocabulary), vocabulary, 2, 5)
    net = LanguageNet(len(vocabulary), "lstm", 5)
    task.loss(net).loss.backward()
    carry = task.carry
    assert not any(leaf.requires_grad for leaf in carry)
    gradients = []
    for _ in range(2):
        net.zero_grad()
        loss = task.loss(net).loss
        loss.backward()
        gradients.append(loss.item())
    assert task.measures(loss.item(), {}) == {"train_perplexity": math.exp(loss.item())}


@torch.no_grad()
def slow_logits(net, vocabulary, text):
    tokens = [END, *vocabulary.encode(text).tolist()]
    features, _ = net(torch.tensor([tokens]))
    return net.logits(features[0]), torch.tensor([*tokens[1:], END])


def slow_nats(net, vocabulary, texts):
    """The cross-entropy over documents, each read whole."""
    return sum(
        F.cross_entropy(*slow_logits(net, vocabulary, text), reduction="sum").item()
        for text in texts
    )


def random_net(vocabulary, **arguments):
    torch.manual_seed(3)
    net = LanguageNet(len(vocabulary), "lstm", 7, **arguments).double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(2)
    return net


@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_documents_are_answered_side_by_side_as_alone(at_once, monkeypatch):
    monkeypatch.setattr(language, "READ_AT_ONCE", at_once)
    monkeypatch.setattr(language, "ROWS_AT_ONCE", 3)
    vocabulary = Vocabulary.fit(TEXTS, "character")
    net = random_net(vocabulary)
    came = list(answers(net, [vocabulary.encode(text) for text in TEXTS]))
    wanted = [slow_logits(net, vocabulary, text) for text in TEXTS]

    def in_order(pairs):
        logits, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        order = sorted(range(len(targets)), key=lambda i: (targets[i].item(), logits[i].tolist()))
        return logits[order], targets[order]

    (ours, our_targets), (theirs, their_targets) = in_order(came), in_order(wanted)
    assert torch.equal(our_targets, their_targets)
    torch.testing.assert_close(ours, theirs)


def test_a_long_document_is_read_in_parts(monkeypatch):
    """Every token counts once; where the warm-up reaches back to the start, the parts are exact."""
    vocabulary = Vocabulary.fit(TEXTS, "character")
    net = random_net(vocabulary)
    whole = measure(net, vocabulary, TEXTS)
    monkeypatch.setattr(language, "PART", 10)
    parts = measure(net, vocabulary, TEXTS)
    assert parts.n_tokens == whole.n_tokens == sum(map(len, TEXTS)) + len(TEXTS)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-12)
    monkeypatch.setattr(language, "WARM_UP", 3)
    short = measure(net, vocabulary, TEXTS)
    assert short.n_tokens == whole.n_tokens and short.loss != whole.loss
    assert short.loss == pytest.approx(whole.loss, rel=0.05)


@pytest.mark.parametrize(("texts", "n_units"), [(TEXTS, 20), (TEXTS * 2, 8)])
def test_every_loss_is_in_its_unit(texts, n_units, monkeypatch):
    """Units are documents, or of a few documents equal stretches, here across their ends."""
    monkeypatch.setattr(language, "PART", 10)
    monkeypatch.setattr(language, "SHORTEST", 5)
    vocabulary = Vocabulary.fit(texts, "character")
    net = random_net(vocabulary)
    model = LanguageModel(network=ModuleNetwork(net), vocabulary=vocabulary)
    unit = language.units([len(text) for text in texts])
    losses = [
        F.cross_entropy(*slow_logits(net, vocabulary, text), reduction="none") for text in texts
    ]
    wanted = np.bincount(unit, torch.cat(losses).numpy())
    assert len(wanted) == n_units and (np.diff(unit) >= 0).all()
    found = model.counted(texts)
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-5)  # probabilities are float32
    assert found[:, -1].tolist() == np.bincount(unit).tolist()
    halves = [model.counted(texts, rank, 2) for rank in range(2)]
    np.testing.assert_allclose(sum(halves), found, rtol=1e-9)


@pytest.mark.parametrize("level", ["character", "word"])
def test_measures_are_those_of_plain_loops(level):
    documents = [f"{text} an other unheard, the cab can catch them at the mall" for text in TEXTS]
    vocabulary = Vocabulary.fit([*documents, "dig dog mad man any the then them other mall"], level)
    net = random_net(vocabulary)
    result = measure(net, vocabulary, documents)
    pairs = [slow_logits(net, vocabulary, text) for text in documents]
    logits, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    n, nats = len(targets), slow_nats(net, vocabulary, documents)
    assert result.n_tokens == n and result.vocabulary_size == len(vocabulary)
    assert result.loss == pytest.approx(nats / n)
    assert result.perplexity == pytest.approx(math.exp(nats / n))
    characters = sum(map(len, documents))
    assert result.bits_per_character == pytest.approx(nats / math.log(2) / characters)
    assert result.unknown == (targets == UNKNOWN).double().mean().item()
    assert (result.unknown > 0) == (level == "word")
    ranked = logits.argsort(1, descending=True)
    assert result.top1 == pytest.approx((ranked[:, 0] == targets).double().mean().item())
    right = (ranked[:, :3] == targets[:, None]).any(1).double().mean().item()
    assert result.top3 == pytest.approx(right)


def test_measuring_keeps_the_mode_and_needs_a_text():
    vocabulary = Vocabulary.fit(TEXTS, "character")
    net = random_net(vocabulary, dropout=0.5).train()
    assert measure(net, vocabulary, TEXTS) == measure(net, vocabulary, TEXTS)
    assert net.training
    with pytest.raises(ValueError, match="the 2 documents have no character"):
        measure(net, vocabulary, ["", ""])
