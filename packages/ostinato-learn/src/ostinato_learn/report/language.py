"""The report of a language model: what is computed of it, and the panels that show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.text.vocabulary import UNKNOWN
from ostinato_learn.report import common, measures
from ostinato_learn.report.figures import Curve, Line
from ostinato_learn.report.markup import Html, count, counted, percent, tag
from ostinato_learn.report.markup import text as escaped
from ostinato_learn.report.page import PageData, RunFacts
from ostinato_learn.report.panels import (
    Card,
    Grid,
    Markup,
    PageSection,
    PageTable,
    PageText,
    Tile,
    Word,
)
from ostinato_learn.saved.card import n_parameters
from ostinato_learn.tasks.language import TASK

if TYPE_CHECKING:
    from ostinato_learn.tasks.language.model import LanguageModel as TokenModel

PROMPTS = 6
READ = 1_000  # characters before a prompt's end that the model reads
SHOWN = 90  # characters of a prompt in the report
AHEAD = {"character": 40, "word": 8, "piece": 10}  # tokens of a completion
PASSAGE = {"character": 600, "word": 140, "piece": 180}  # tokens shown with their bits
SAMPLE = {"character": 500, "word": 120, "piece": 150}
TEMPERATURES = (0.5, 1.0)
# Tokens by their place in a document: multiply-adds of the readout, which is most of the work.
WORK = 2**33
DOCUMENTS, LENGTH = 32, 1_024  # at most
MOST_CHARACTERS = 8  # per token, on average: how much of a long document is encoded
DEEPEST = 12.0  # bits of the strongest colour of a token
SIGNS = {"\n": "↵", "\t": "⇥", " ": "␣"}  # for invisible characters


@dataclass(frozen=True)
class Completion:
    """The suggestions of a keyboard at a place in a text.

    Attributes:
        prompt: the end of the text before.
        suggestions: the likeliest next tokens and their probabilities, the best first.
        came: the text that followed.
        continued: the model's own continuation, always its likeliest token.
    """

    prompt: str
    suggestions: list[tuple[str, float]]
    came: str
    continued: str


@dataclass(frozen=True)
class Sample:
    """A text that the model generated; see `fitted_language.Generated`."""

    temperature: float
    text: str
    n_tokens: int


@dataclass(frozen=True, eq=False, kw_only=True)
class LanguageData(PageData):
    """The contents of a language model's report.

    Args:
        title, …, environment, parameters: see `RunFacts` and `PageData`.
        level: "character", "word" or "piece".
        vocabulary_size: V.
        n_documents, n_characters: of the test part.
        completions: at places in the test part.
        samples: texts that the model made.
        passage: tokens of the test part, each with the bits that it cost.
        by_position: `[P, 2]`, tokens of documents by their place: the place, counted from 1, and
            the mean bits of a token there; None where documents are too short for it.
    """

    level: str
    vocabulary_size: int
    n_documents: int = 0
    n_characters: int = 0
    completions: list[Completion] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    passage: list[tuple[str, float]] = field(default_factory=list)
    by_position: np.ndarray | None = None

    def sizes(self) -> str:
        trained, parts = self.environment.get("data", {}), []
        if "n_train" in trained and "characters" in trained:
            learnt = counted(trained["n_train"], "text")
            parts.append(f"{learnt} of {count(trained['characters'])} characters")
        tested = counted(self.n_documents, "text")
        parts.append(f"tested on {tested} of {count(self.n_characters)} characters")
        return f"{', '.join(parts)}; {count(self.vocabulary_size)} different {self.level}s"

    def tiles(self) -> list[Tile]:
        key, tiles = "bits_per_character", []
        if self.test.get(key) is not None:
            theirs = self.evaluation.get("baselines", {}).items()
            beside = "; ".join(f"{name}: {each[key]:.3f}" for name, each in theirs if key in each)
            bits = f"{self.test[key]:.3f}"
            tiles.append(Tile(bits, "bits per character of the test part", beside))
        if self.test.get("perplexity") is not None:
            size = f"of {count(self.vocabulary_size)} that it knows"
            if unknown := self.test.get("unknown"):
                size += f"; {percent(unknown)} of the test part are unknown"
            perplexity = f"{self.test['perplexity']:.4g}"
            tiles.append(Tile(perplexity, f"perplexity of a {self.level}", size))
        return tiles

    def sections(self) -> list[PageSection | None]:
        return [
            measures.section(self, TASK.measures),
            self._completions(),
            self._surprise(),
            self._samples(),
            self._by_position(),
            self._training(),
            *common.surroundings(self),
        ]

    def _training(self) -> PageSection:
        """The loss over the iterations, in bits of a token."""

        def in_bits(report: dict[str, Any]) -> dict[str, Any]:
            losses = ("loss", "validation_loss")
            return {k: v / math.log(2) if k in losses else v for k, v in report.items()}

        facts = replace(
            self,
            metrics=[in_bits(report) for report in self.metrics],
            losses=[(iteration, loss / math.log(2)) for iteration, loss in self.losses],
        )
        sentence = f"Loss: the mean cross-entropy of the next {self.level}, in bits."
        return common.training(facts, sentence, f"Bits of a {self.level}")

    def _completions(self) -> PageSection:
        """Suggestions at places of the test part, and the text that followed there."""
        cards = Grid([_completed(each, self.level) for each in self.completions])
        return PageSection(
            "completions",
            "Completions",
            [cards] if self.completions else [],
            note=f"At {len(self.completions)} places of the test part: what the model suggests, "
            f"the {self.level} that came marked, and how it would go on by itself, always with its "
            f"likeliest {self.level}.",
            why="None: the test part has no blanks.",
        )

    def _samples(self) -> PageSection:
        """Texts that the model generated."""
        cards = Grid([self._written(each) for each in self.samples], tall=True)
        return PageSection(
            "samples",
            "Written by the model",
            [cards] if self.samples else [],
            note="Drawn from the model's own probabilities; a temperature below 1 makes the likely "
            "likelier.",
            why="None: no text was generated.",
        )

    def _written(self, each: Sample) -> Card:
        made = f"{count(each.n_tokens)} {self.level}s"
        return Card(f"Temperature {each.temperature:g}: {made}", [PageText([Word(each.text)])])

    def _surprise(self) -> PageSection:
        """A passage in which each token is tinted by the bits that it cost."""
        heading, bits = "A passage, and what surprised the model", [b for _, b in self.passage]
        if not bits:
            why = "None: the test part is empty."
            return PageSection("passage", "A passage", heading=heading, why=why)
        known = all(token != "\ufffd" for token, _ in self.passage)
        unknown = "" if known else f" \ufffd is a {self.level} that it does not know."
        words = [Word(token, _tint(each)) for token, each in self.passage]
        scale = Markup(
            '<p class="scale"><span>0 bits</span><i class="surprise"></i>'
            f"<span>{DEEPEST:g} bits or more</span></p>"
        )
        return PageSection(
            "passage",
            "A passage",
            [Card("", [PageText(words, between=" " if self.level == "word" else ""), scale])],
            heading,
            f"From the test part. The stronger a {self.level} is tinted, the less the model "
            f"expected it; here they cost {sum(bits) / len(bits):.2f} bits each. A certain one "
            f"costs 0 bits, one out of two equally likely 1 bit.{unknown}",
        )

    def _by_position(self) -> PageSection:
        """The mean bits of a token by its position in the document."""
        heading = "Bits by position in the document"
        if self.by_position is None:
            why = "The documents of the test part are too short."
            return PageSection("position", "By position", heading=heading, why=why)
        places, bits = self.by_position.T
        sentence = f"{bits[0]:.2f} bits at the beginning of a document, {bits[-1]:.2f} at the end."
        drawn = Curve(
            id="by-position",
            label=heading,
            caption=sentence,
            height=2.8,
            lines=[Line(places, bits, style={"marker": "o", "markersize": 4})],
            x=f"{self.level} of the document",
            y=f"bits of a {self.level}",
            log="x",
            y_limits=(0, 1.08 * float(bits.max())),
        )
        rows = [[f"{place:,.0f}", f"{each:.3f}"] for place, each in self.by_position]
        header = [f"about the {self.level}", "bits"]
        table = PageTable("Mean bits, in parts of documents", header, rows)
        note = "At the beginning of a document the model knows nothing of it; reading helps it."
        return PageSection("position", "By position", [Grid([drawn, table])], heading, note)


def _completed(each: Completion, level: str) -> Card:
    chips = ""
    for suggestion, probability in each.suggestions:
        shown = Html(f"{tag('b', _seen(suggestion))} {percent(probability, 1)}")
        chips += tag("li", shown, "right" if begins(each.came, suggestion, level) else "")
    return Card(
        "",
        [
            Markup(
                f'<p class="prompt">… {escaped(each.prompt)}<i></i></p>'
                f'<ul class="suggestions">{chips or "<li>nothing</li>"}</ul>'
                f"<dl><dt>came</dt><dd>{escaped(each.came)}</dd>"
                f"<dt>by itself</dt><dd>{escaped(_seen(each.continued))}</dd></dl>"
            )
        ],
        "completion",
    )


def begins(came: str, suggestion: str, level: str) -> bool:
    """Whether a text continues with a suggestion, which is a whole word at the level "word"."""
    came = came if level == "character" else came.lstrip()
    suggestion = suggestion if level == "character" else suggestion.lstrip()
    after = came[len(suggestion) : len(suggestion) + 1]
    whole = level != "word" or not (suggestion[-1:].isalnum() and after.isalnum())
    return bool(suggestion) and came.startswith(suggestion) and whole


def _seen(token: str) -> str:
    """A token with signs for invisible characters."""
    return "".join(SIGNS.get(c, c) for c in token) if not token.strip() else token


def _tint(bits: float) -> str:
    strength = round(min(1.0, bits / DEEPEST) * 9)  # ten strengths
    return f"bits-{strength}" if strength else ""


def collect_language(model: Any, documents: Sequence[str], facts: RunFacts) -> LanguageData:
    """Compute the contents of a language model's report from test documents, for `write_report`.

    The same model and documents give the same data: places and samples are drawn by fixed seeds.

    Args:
        model: a fitted estimator, or its model.
        documents: texts that it was not trained on.
        facts: the facts of the run.
    """
    from ostinato_learn.tasks.language.fit import as_documents

    fitted: TokenModel = common.fitted_of(model)
    documents = as_documents(documents, "collect_language: documents")
    fitted.net.eval()  # no dropout
    vocabulary = fitted.vocabulary
    longest = max(documents, key=len)
    data = LanguageData(
        **vars(facts),
        level=vocabulary.level,
        vocabulary_size=len(vocabulary),
        n_documents=len(documents),
        n_characters=sum(map(len, documents)),
        parameters=n_parameters(fitted.net.state_dict()),
    )
    return replace(
        data,
        completions=[
            _completion(fitted, text, place) for text, place in _places(documents, vocabulary.level)
        ],
        samples=[_sample(fitted, temperature) for temperature in TEMPERATURES],
        passage=_passage(fitted, longest),
        by_position=_by_position(fitted, documents),
    )


def _places(documents: list[str], level: str) -> list[tuple[str, int]]:
    """Places after a blank, spread over all documents: (document, characters before it)."""
    ends = np.cumsum([len(text) for text in documents])
    found: dict[tuple[int, int], None] = {}  # in order, each once
    for share in (np.arange(PROMPTS) + 0.5) / PROMPTS:
        at = int(share * ends[-1])
        i = int(np.searchsorted(ends, at, side="right"))
        text = documents[i]
        place = text.find(" ", at - int(ends[i] - len(text))) + 1
        if place == 0:  # no further blank
            place = text.rfind(" ") + 1
        if 0 < place < len(text):
            # At the level "character" the first letter of the word is given: without it, too many
            # words are possible.
            found[i, min(place + (level == "character"), len(text) - 1)] = None
    return [(documents[i], place) for i, place in found]


def _completion(model: TokenModel, text: str, place: int) -> Completion:
    read, came = text[max(0, place - READ) : place], text[place:]
    n = AHEAD[model.vocabulary.level]
    tokens = model.vocabulary.encode(came[: 12 * n])[:n]
    sentence = (
        came[:n] if model.vocabulary.level == "character" else _beginning(model, came, len(tokens))
    )
    found = model.suggest(read, 3)
    return Completion(
        prompt=read[-SHOWN:],
        suggestions=[(each.text, each.probability) for each in found],
        came=sentence,
        continued=model.generate(read, n, temperature=0).text,
    )


def _beginning(model: TokenModel, text: str, n: int) -> str:
    """The first n tokens of a text, as they are written: that many words."""
    words = text.split(" ")
    for stop in range(1, len(words) + 1):
        begun = " ".join(words[:stop])
        if len(model.vocabulary.encode(begun)) >= n:
            return begun
    return text


def _sample(model: TokenModel, temperature: float) -> Sample:
    made = model.generate("", SAMPLE[model.vocabulary.level], temperature=temperature)
    return Sample(temperature, made.text, made.n_tokens)


def _passage(model: TokenModel, text: str) -> list[tuple[str, float]]:
    """The beginning of the second half of a text, each token with its bits."""
    vocabulary, n = model.vocabulary, PASSAGE[model.vocabulary.level]
    half = len(text) // 2 if len(text) > 4 * n else 0
    start = text.find(" ", half) + 1 if half else 0
    before = vocabulary.encode(text[max(0, start - READ) : start])
    tokens = vocabulary.encode(text[start : start + 12 * n])[:n]
    (bits,) = model.bits_of([np.concatenate([before, tokens])])
    bits = bits[len(before) : -1]
    strings = vocabulary.strings
    if vocabulary.level == "character":
        shown = list(text[start : start + len(tokens)])
    else:
        shown = ["\ufffd" if i == UNKNOWN else strings[i] for i in tokens.tolist()]
    return list(zip(shown, bits.tolist(), strict=True))


def _by_position(model: TokenModel, documents: list[str]) -> np.ndarray | None:
    """`[P, 2]`: places and the mean bits there, over some documents, in parts that double."""
    weight = model.net.output[0]
    most = int(min(DOCUMENTS * LENGTH, max(LENGTH, WORK // weight.numel())))
    bits: list[np.ndarray] = []
    for text in documents[:DOCUMENTS]:
        tokens = model.vocabulary.encode(text[: MOST_CHARACTERS * LENGTH])
        (found,) = model.bits_of([tokens[:LENGTH]])
        # The END after a document that was cut does not belong to the text.
        cut = len(tokens) > LENGTH or len(text) > MOST_CHARACTERS * LENGTH
        bits.append(found[:-1] if cut else found)
        if sum(map(len, bits)) >= most:
            break
    longest = max(map(len, bits))
    if longest < 16:
        return None
    edges = [0, *(2**k for k in range(3, 20) if 2**k < 0.75 * longest), longest]
    rows = []
    for start, stop in pairwise(edges):
        part = np.concatenate([each[start:stop] for each in bits])
        rows.append([(start + 1 + stop) / 2, part.mean()])
    return np.array(rows)
