"""A language model's report: what is collected, compared with reading it anew, and the page."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import report_reader
import task_examples
import torch

from ostinato_learn.data.text.vocabulary import END
from ostinato_learn.report import RunFacts, write_report
from ostinato_learn.report import language as module
from ostinato_learn.report.language import LanguageData, collect_language
from ostinato_learn.tasks.language.fit import Reading, fit
from ostinato_learn.tasks.language.model import LanguageModel
from ostinato_learn.tasks.language.net import LanguageArchitecture
from ostinato_learn.training import Plan

TEXTS = [
    "the cat sat on the mat and a dog sat on the cat. " * 8,
    "a dog and a cat, a dog and a man. " * 6,
    "the end.",
]


@pytest.fixture(scope="module", params=["character", "word"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return fit(
        TEXTS,
        LanguageArchitecture(cell="gru", hidden_size=12, embedding_size=6, dropout=0.5),
        Reading(level=request.param),
        Plan(iterations=20, batch_size=4, optimizer="adamw", learning_rate=0.02, truncate=12),
    )[0]


def read(tmp_path: Path, data: LanguageData) -> report_reader.Page:
    write_report(tmp_path / "report.html", data)
    return report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))


def bits_one_by_one(model: LanguageModel, tokens: list[int]) -> list[float]:
    """−log2 of the probability of each token, from reading all before it anew."""
    found = []
    for n, token in enumerate(tokens):
        with torch.no_grad():
            features, _ = model.net(torch.tensor([[END, *tokens[:n]]]))
            logits = model.net.logits(features[0, -1]).double()
        found.append(-float(torch.log_softmax(logits, 0)[token]) / math.log(2))
    return found


def test_bits_are_those_of_reading_everything_anew(model: LanguageModel) -> None:
    model.net.train()  # as after a training: the report has no dropout all the same
    data = collect_language(model, TEXTS, RunFacts(title="t"))
    tokens = [model.vocabulary.encode(text).tolist() for text in TEXTS]
    alone = [bits_one_by_one(model, [*each, END]) for each in tokens]
    for found, wanted in zip(model.bits_of([np.array(t) for t in tokens]), alone, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)
    assert data.by_position is not None
    longest = max(map(len, alone))
    edges = [0, *(2**k for k in range(3, 20) if 2**k < 0.75 * longest), longest]
    for (place, mean), a, b in zip(data.by_position, edges[:-1], edges[1:], strict=True):
        inside = [bit for each in alone for bit in each[a:b]]
        assert mean == pytest.approx(np.mean(inside), abs=1e-4) and a < place <= b


def test_a_document_that_was_cut_has_no_end(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LENGTH", 30)
    (whole,) = model.bits_of([model.vocabulary.encode(TEXTS[0])])
    found = module._by_position(model, TEXTS[:1])
    assert found is not None and found[-1, 0] == (17 + 30) / 2
    assert found[-1, 1] == pytest.approx(whole[16:30].mean(), abs=1e-4)
    assert found[0, 1] == pytest.approx(whole[:8].mean(), abs=1e-4)


def test_the_mean_bits_are_those_of_the_evaluation(model: LanguageModel) -> None:
    found = model.bits_of([model.vocabulary.encode(text) for text in TEXTS])
    loss = model.evaluate(TEXTS)["loss"]
    assert np.concatenate(found).mean() * math.log(2) == pytest.approx(loss, rel=1e-4)


def test_the_passage_is_text_of_the_longest_document(model: LanguageModel) -> None:
    passage = collect_language(model, TEXTS, RunFacts(title="t")).passage
    separator = "" if model.vocabulary.level == "character" else " "
    shown = separator.join(token for token, _ in passage)
    plain = TEXTS[0].replace(".", " .") if separator else TEXTS[0]
    assert shown in " ".join(plain.split()) or shown in plain
    tokens = model.vocabulary.encode(TEXTS[0])
    if len(passage) == len(tokens):  # shown whole: nothing was read before it
        wanted = bits_one_by_one(model, tokens.tolist())
        assert [bits for _, bits in passage] == pytest.approx(wanted, abs=1e-4)


def test_completions_go_on_from_places_in_the_texts(model: LanguageModel) -> None:
    data = collect_language(model, TEXTS, RunFacts(title="t"))
    assert 1 <= len(data.completions) <= module.PROMPTS
    for each in data.completions:
        assert any(each.prompt + each.came in text for text in TEXTS)
        whole = next(t for t in TEXTS if each.prompt + each.came in t)
        prompt = whole[: whole.index(each.prompt + each.came) + len(each.prompt)]
        if len(prompt) == len(each.prompt):  # the beginning of the document is shown
            assert [s.text for s in model.suggest(prompt, 3)] == [s for s, _ in each.suggestions]
            n = module.AHEAD[model.vocabulary.level]
            assert model.generate(prompt, n, temperature=0).text == each.continued
    again = collect_language(model, TEXTS, RunFacts(title="t"))
    assert again.completions == data.completions and again.samples == data.samples
    assert [sample.temperature for sample in data.samples] == list(module.TEMPERATURES)


@pytest.mark.parametrize(
    ("came", "suggestion", "level", "right"),
    [
        ("the cat", "the", "word", True),
        ("theatre", "the", "word", False),
        ("the", "the", "word", True),
        (", and", ",", "word", True),
        ("theatre", "t", "character", True),
        (" the", " the", "piece", True),
        ("the", " the", "piece", True),
        ("a", "", "word", False),
    ],
)
def test_which_suggestion_came(came: str, suggestion: str, level: str, right: bool) -> None:
    assert module.begins(came, suggestion, level) is right


def test_texts_without_blanks_or_of_one_character(model: LanguageModel, tmp_path: Path) -> None:
    data = collect_language(model, ["cat", "a"], RunFacts(title="t"))
    assert data.completions == [] and data.by_position is None
    text = read(tmp_path, data).sections
    assert "has no blanks" in text["completions"] and "too short" in text["position"]


def test_the_page_says_what_the_data_hold(tmp_path: Path) -> None:
    data = task_examples.language()
    page = read(tmp_path, data)
    measures = page.tables["Measures on the test part; the best of each in bold"]
    assert measures[-1] == ["next token among three", "40.00\u202f%", "–"]
    text = page.sections["completions"]
    assert "truth" in text and "50.0\u202f%" in text and "truth universally" in text
    right = [a for tag, a in page.tags if tag == "li" and a.get("class") == "right"]
    assert len(right) == 1
    assert "Temperature 0.5: 30 " in page.sections["samples"]
    tints = [a["class"] for _, a in page.tags if a.get("class", "").startswith("bits-")]
    assert tints == ["bits-4", "bits-9"]  # of 5 and 99 bits; 0 bits have none
    assert page.tables["Mean bits, in parts of documents"][1:] == [["4", "9.000"], ["12", "8.000"]]


def test_the_loss_is_shown_in_bits(tmp_path: Path) -> None:
    data = task_examples.language()
    page = read(tmp_path, data)
    rows = page.tables["6 of 6 reports of the training"]
    losses = {name: rows[0].index(name) for name in ("loss", "validation loss")}
    for row, report in zip(rows[1:], data.metrics, strict=True):
        assert float(row[losses["loss"]]) == pytest.approx(report["loss"] / math.log(2), rel=1e-3)
        wanted = report["validation_loss"] / math.log(2)
        assert float(row[losses["validation loss"]]) == pytest.approx(wanted, rel=1e-3)
    assert any(label.startswith("Bits of a word over 5,000") for label in page.svg_texts)


def test_long_texts_make_no_large_page(model: LanguageModel, tmp_path: Path) -> None:
    data = collect_language(model, [TEXTS[0] * 200, TEXTS[1] * 50], RunFacts(title="long"))
    read(tmp_path, data)
    assert (tmp_path / "report.html").stat().st_size < 200_000
