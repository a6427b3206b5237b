"""The sections of a language model's report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ostinato.report import frame, markup, tables
from ostinato.report.frame import tile
from ostinato.report.language import Completion, LanguageData, Sample
from ostinato.report.markup import count, note, omitted, percent, plain, row, section, text
from ostinato.report.svg import ACCENT, inline_svg

DEEPEST = 12.0  # bits of the strongest colour of a token
SIGNS = {"\n": "↵", "\t": "⇥", " ": "␣"}  # of characters that would not be seen


def header(data: LanguageData) -> str:
    """The heading, the numbers that matter, and the way to the sections."""
    test = data.evaluation.get("test", {})
    tiles = []
    if test.get("bits_per_character") is not None:
        shown = f"{test['bits_per_character']:.3f}"
        tiles.append(tile(shown, "bits per character of the test part", _beside(data)))
    if test.get("perplexity") is not None:
        size = f"of {count(data.vocabulary_size)} that it knows"
        unknown = test.get("unknown")
        more = "" if unknown is None else f"; {percent(unknown)} of the test part are unknown"
        tiles.append(
            tile(f"{test['perplexity']:.4g}", f"perplexity of a {data.level}", size + more)
        )
    tiles += frame.training_tiles(data, data.parameters)
    return frame.head(data, _sizes(data), tiles, _CONTENTS)


def _beside(data: LanguageData) -> str:
    baselines = data.evaluation.get("baselines", {})
    key = "bits_per_character"
    return "; ".join(f"{n}: {each[key]:.3f}" for n, each in baselines.items() if key in each)


def _sizes(data: LanguageData) -> str:
    trained = data.environment.get("data", {})
    parts = []
    if "n_train" in trained and "characters" in trained:
        parts.append(f"{_texts(trained['n_train'])} of {count(trained['characters'])} characters")
    parts.append(f"tested on {_texts(data.n_documents)} of {count(data.n_characters)} characters")
    kinds = f"{count(data.vocabulary_size)} different {data.level}s"
    return ", ".join(parts) + f"; {kinds}"


def _texts(n: int) -> str:
    return "1 text" if n == 1 else f"{count(n)} texts"


def measured(data: LanguageData) -> str:
    """The measures of the model beside those of the baselines, and how good its suggestions are."""
    return frame.beside_baselines(data, "language", below=_keyboard(data))


def _keyboard(data: LanguageData) -> str:
    """How often the next token is among the suggestions to a user who types."""
    test = data.evaluation.get("test", {})
    told = {
        "top1": f"the next {data.level} is the first suggestion",
        "top3": f"the next {data.level} is among three suggestions",
    }
    rows = [row(words, [percent(test[k])]) for k, words in told.items() if test.get(k) is not None]
    if not rows:
        return ""
    shown = tables.table(
        "As a keyboard, on the test part",
        ["when a user types", "share"],
        rows,
        "numbers measures",
    )
    return f'<div class="gap"></div>{shown}'


def training(data: LanguageData) -> str:
    """The loss over the iterations, in bits of a token."""
    told = f"Loss: the mean cross-entropy of the next {data.level}, in bits."
    in_bits = replace(
        data,
        metrics=[_in_bits(report) for report in data.metrics],
        losses=[(iteration, loss / math.log(2)) for iteration, loss in data.losses],
    )
    return frame.training(in_bits, told, f"Bits of a {data.level}")


def _in_bits(report: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v / math.log(2) if k in ("loss", "validation_loss") else v for k, v in report.items()
    }


def completions(data: LanguageData) -> str:
    """Suggestions at places of the test part, beside what came there."""
    heading = "Completions"
    if not data.completions:
        return section("completions", heading, omitted("None: the test part has no blanks."))
    cards = "\n".join(_card(each, data.level) for each in data.completions)
    n = len(data.completions)
    return section(
        "completions",
        heading,
        note(
            f"At {n} places of the test part: what the model suggests, the {data.level} that came "
            "marked, and how it would go on by itself, always with its likeliest "
            f"{data.level}."
        ),
        f'<div class="grid">\n{cards}\n</div>',
    )


def _card(each: Completion, level: str) -> str:
    chips = []
    for suggestion, probability in each.suggestions:
        right = _begins(each.came, suggestion, level)
        kind = ' class="right"' if right else ""
        chips.append(
            f"<li{kind}><b>{text(_seen(suggestion))}</b> {text(percent(probability, 1))}</li>"
        )
    shown = "".join(chips) or "<li>nothing</li>"
    return (
        f'<article class="completion"><p class="prompt">… {text(plain(each.prompt))}<i></i></p>'
        f'<ul class="suggestions">{shown}</ul>'
        f"<dl><dt>came</dt><dd>{text(plain(each.came))}</dd>"
        f"<dt>by itself</dt><dd>{text(plain(_seen(each.continued)))}</dd></dl></article>"
    )


def _begins(came: str, suggestion: str, level: str) -> bool:
    """Whether a text goes on with a suggestion, which is a whole word at the level "word"."""
    came = came if level == "character" else came.lstrip()
    suggestion = suggestion if level == "character" else suggestion.lstrip()
    after = came[len(suggestion) : len(suggestion) + 1]
    whole = level != "word" or not (suggestion[-1:].isalnum() and after.isalnum())
    return bool(suggestion) and came.startswith(suggestion) and whole


def _seen(token: str) -> str:
    """A token with signs for what would not be seen."""
    return "".join(SIGNS.get(c, c) for c in token) if not token.strip() else token


def samples(data: LanguageData) -> str:
    """Texts that the model wrote, and how much of each is copied from the training text."""
    heading = "Written by the model"
    if not data.samples:
        return section("samples", heading, omitted("None: no text was generated."))
    cards = "\n".join(_sample(each, data.level) for each in data.samples)
    return section(
        "samples",
        heading,
        note(
            "Drawn from the model's own probabilities; a temperature below 1 makes the likely "
            f"likelier. A text that copies its training text has 20 {data.level}s in a row that "
            "stand there, word for word; a copied text says little about the model."
        ),
        f'<div class="cards">\n{cards}\n</div>',
    )


def _sample(each: Sample, level: str) -> str:
    if each.copied is None:
        copied = "too short to be a copy"
    else:
        copied = f"{percent(each.copied, 1)} of its 20-grams are copied from the training text"
    told = f"Temperature {each.temperature:g}: {count(each.n_tokens)} {level}s, {copied}"
    lines = "\n".join(text(line) for line in each.text.splitlines())
    return f'<article><h3>{text(told)}</h3><p class="written">{lines}</p></article>'


def surprise(data: LanguageData) -> str:
    """A passage in which each token is tinted by the bits that it cost."""
    heading = "A passage, and what surprised the model"
    if not data.passage:
        return section("passage", heading, omitted("None: the test part is empty."))
    mean = sum(bits for _, bits in data.passage) / len(data.passage)
    known = all(token != "\ufffd" for token, _ in data.passage)
    unknown = "" if known else f" \ufffd is a {data.level} that it does not know."
    separator = "" if data.level != "word" else " "
    tokens = separator.join(_tinted(token, bits) for token, bits in data.passage)
    scale = (
        '<p class="scale"><span>0 bits</span><i class="surprise"></i>'
        f"<span>{DEEPEST:g} bits or more</span></p>"
    )
    return section(
        "passage",
        heading,
        note(
            f"From the test part. The stronger a {data.level} is tinted, the less the model "
            f"expected it; here they cost {mean:.2f} bits each. A certain one costs 0 bits, one "
            f"out of two equally likely 1 bit.{unknown}"
        ),
        f'<article><p class="written">{tokens}</p>{scale}</article>',
    )


def _tinted(token: str, bits: float) -> str:
    strength = round(min(1.0, bits / DEEPEST) * 9)  # ten strengths
    shown = text(token) if token != "\n" else "\n"
    return f'<span class="bits-{strength}">{shown}</span>' if strength else shown


def by_position(data: LanguageData) -> str:
    """The mean bits of a token by its position in the document."""
    heading = "Bits by position in the document"
    if data.by_position is None:
        return section(
            "position", heading, omitted("The documents of the test part are too short.")
        )
    places, bits = data.by_position.T
    told = f"{bits[0]:.2f} bits at the beginning of a document, {bits[-1]:.2f} at the end."

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        ax.plot(places, bits, color=ACCENT, marker="o", markersize=4)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(f"{data.level} of the document")
        ax.set_ylabel(f"bits of a {data.level}")
        ax.set_ylim(0, 1.08 * float(bits.max()))

    svg = inline_svg("by-position", f"{heading}: {told}", (4.7, 2.8), draw)
    rows = [row(f"{place:,.0f}", [f"{b:.3f}"]) for place, b in data.by_position]
    header = [f"about the {data.level}", "bits"]
    shown = tables.table("Mean bits, in parts of documents", header, rows, "numbers")
    return section(
        "position",
        heading,
        note(
            "At the beginning of a document the model knows nothing of it; what it reads helps it."
        ),
        f'<div class="grid">{markup.figure(svg, told)}\n{shown}</div>',
    )


IN_ORDER: list[Callable[[Any], str]] = [
    measured,
    completions,
    surprise,
    samples,
    by_position,
    training,
    frame.configuration,
    frame.environment,
]
_CONTENTS = [
    ("measures", "Measures"),
    ("completions", "Completions"),
    ("passage", "A passage"),
    ("samples", "Written by the model"),
    ("position", "By position"),
    ("training", "Training"),
    ("configuration", "Configuration"),
    ("environment", "Environment"),
]
