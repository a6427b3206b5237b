"""The sections of the report, each a function from the data to markup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ostinato.report import figures, frame, groups, markup, steps, tables
from ostinato.report.contents import LabelledAnswers, ReportData, StepView
from ostinato.report.frame import interval, tile
from ostinato.report.markup import count, note, omitted, percent, plain, section, text
from ostinato.report.parts import MOST

MAX_TABLE_CLASSES = 20  # more classes than this are an image, not a table of counts
MAX_IMAGE_CLASSES = 1000  # more than these are neither: a matrix of 10,000 classes takes 800 MB


def header(data: ReportData) -> str:
    """The heading, the numbers that matter, and the way to the sections."""
    test = data.evaluation.get("test", {})
    n = int(test.get("n", len(data.y_true)))
    accuracy = test.get("accuracy", float((data.y_pred == data.y_true).mean()))
    low, high = interval(accuracy, n)
    tiles = [
        tile(
            percent(accuracy),
            f"accuracy on all {count(n)} test examples",
            f"95\u202f% interval {percent(low)} to {percent(high)}; "
            f"always the most frequent class: {percent(_chance(data))}",
        )
    ]
    if "notebook_128" in data.evaluation:
        share = percent(data.evaluation["notebook_128"]["accuracy"])
        tiles.append(tile(share, "accuracy on the notebook's first 128 test images"))
    loss = test.get("loss", _cross_entropy(data))
    tiles.append(tile(f"{loss:.4f}", "test loss", "mean cross-entropy in nats"))
    parameters = None if data.network is None else data.network.parameters
    tiles += frame.training_tiles(data, parameters)
    there = {"where": _by_length(data) is not None, "measures": bool(_baselines(data))}
    shown = [(identity, name) for identity, name in _CONTENTS if there.get(identity, True)]
    return frame.head(data, _sizes(data), tiles, shown)


def measured(data: ReportData) -> str:
    """Nothing without a baseline: the measures of the network stand in the head."""
    return frame.beside_baselines(data, "classify") if _baselines(data) else ""


def _baselines(data: ReportData) -> dict[str, Any]:
    return data.evaluation.get("baselines", {})


def _sizes(data: ReportData) -> str:
    """The data in a line: how many sequences, how long, of how many numbers, and classes."""
    if data.network is None or data.lengths is None:
        return ""
    sequences = frame.sequences(data, len(data.y_true), *data.lengths)
    features = markup.counted(data.network.n_features, "number")
    return f"{sequences} of {features}, {count(len(data.classes))} classes"


def _chance(data: ReportData) -> float:
    """The accuracy of always naming the most frequent class."""
    return float(np.bincount(data.y_true).max() / len(data.y_true))


def _cross_entropy(data: ReportData) -> float:
    true = data.proba[np.arange(len(data.y_true)), data.y_true]
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def network(data: ReportData) -> str:
    """The drawing and the sizes of the network, and its equations to unfold."""
    if data.network is None:
        return frame.network(None)
    equations = text("\n".join(data.network.equations))
    biases = "Layers learn two biases, as those of PyTorch do; a single one here is their sum."
    told = (
        f"<details><summary>The equations</summary><pre>{equations}</pre><p>{biases}</p></details>"
    )
    return frame.network(data.network, told)


def training(data: ReportData) -> str:
    """The loss and the accuracy of the training over its iterations."""
    told = "Loss (mean cross-entropy, nats) and accuracy of a batch, before its update."
    return frame.training(data, told, accuracy=True)


def by_step(data: ReportData) -> str:
    """How the accuracy grows with what has been read, as a curve and as a table."""
    unit = _unit(data)
    heading = f"Accuracy by {unit}s read"
    accuracy = data.accuracy_by_step
    if accuracy is None:
        return section("steps", heading, omitted(_no_steps(data)))
    told = (
        f"{_rise(accuracy, data.n_cut or len(data.y_true), unit)} "
        f"Dotted: always the most frequent class, {percent(_chance(data))}."
    )
    svg = figures.accuracy_by_step(f"{heading}: {told}", accuracy, _chance(data), unit)
    return section(
        "steps",
        heading,
        note(_how_by_step(data, unit)),
        f'<div class="grid">{markup.figure(svg, told)}\n{tables.steps_table(accuracy, unit)}</div>',
    )


def _how_by_step(data: ReportData, unit: str) -> str:
    if data.n_cut:
        few = data.n_cut < len(data.y_true)
        which = f"{count(data.n_cut)} of the test sequences" if few else "The test sequences"
        return (
            f"{which}, cut after every {unit} and read anew, as if they ended there. The network "
            "was trained on whole ones, so early answers may be worse than chance."
        )
    return (
        f"The readout, applied to the state after every {unit}. It was trained on the last "
        "state alone, so its early answers may be worse than chance. A sequence that has ended "
        "keeps its last answer."
    )


def by_length(data: ReportData) -> str:
    """Nothing where all sequences are of the same length."""
    found = _by_length(data)
    if found is None:
        return ""
    return groups.where([("by-length", "length of the sequence", found, "")], "Accuracy by length")


def _by_length(data: ReportData) -> groups.Groups | None:
    if data.each_length is None:
        return None
    right = (data.y_pred == data.y_true).astype(np.int64)
    return groups.by_length(data.each_length, np.ones_like(right), right)


def calibration(data: ReportData) -> str:
    """Whether the network is right as often as it is sure."""
    return groups.calibration(data.proba.max(axis=1), data.y_pred == data.y_true, "examples")


def _rise(accuracy: np.ndarray, n: int, unit: str) -> str:
    """From the first answer to the last in a sentence, which names a step only if there is a rise.

    A rise is real if it is more than three of its standard errors: √(p(1−p)/n) for each of the two
    shares, p estimated as (k + 1)/(n + 2), which is never quite 0 or 1.
    """
    first, last = float(accuracy[0]), float(accuracy[-1])
    told = (
        f"{percent(first)} after the first {unit}, {percent(last)} after all {count(len(accuracy))}"
    )
    estimates = (np.array([first, last]) * n + 1) / (n + 2)
    error = float(np.sqrt((estimates * (1 - estimates)).sum() / n))
    if abs(last - first) <= 3 * error:
        return f"{told}: no more apart than chance makes them with {markup.counted(n, 'example')}."
    if last < first:
        return f"{told}."
    below = np.flatnonzero(accuracy < first + 0.9 * (last - first))
    return f"{told}; nine tenths of the rise are made, and kept, after {count(int(below[-1]) + 2)}."


def confusion(data: LabelledAnswers) -> str:
    """Which class is taken for which: counts in a table; of many classes, an image."""
    if len(data.classes) > MAX_IMAGE_CLASSES:
        return section("confusion", "Confusion", _too_many(data))
    matrix = _confusion(data)
    pairs = tables.most_confused(matrix, data.classes, 5)
    told = "; ".join(
        f"{plain(true)} taken for {plain(predicted)} ({count(times)}\u00d7)"
        for true, predicted, times in pairs
    )
    mistakes = f"The most frequent mistakes: {told}." if pairs else "No mistakes."
    if len(data.classes) <= MAX_TABLE_CLASSES:
        shown = tables.confusion_table(matrix, data.classes)
    else:
        label = f"Confusion matrix of {len(data.classes)} classes. {mistakes}"
        shown = markup.figure(
            figures.confusion_image(label, matrix, data.classes),
            "Rows: true class. Columns: predicted class. Strength: share of the true class.",
            wide=True,
        )
    return section("confusion", "Confusion", note(mistakes), shown)


def per_class(data: LabelledAnswers, kind: str = "class", of: str = "examples") -> str:
    """Scores of each class; `kind` is what a class is called, and `of` names what is classified."""
    heading = "Labels" if kind == "label" else "Classes"
    if len(data.classes) > MAX_IMAGE_CLASSES:
        return section("classes", heading, _too_many(data))
    shown = tables.class_table(_confusion(data), data.classes, kind, of)
    return section(
        "classes",
        heading,
        note(
            f"Precision: how many of those given this {kind} have it. Recall: how many of this "
            f"{kind} were found. F1: their harmonic mean. A dash: never given, or never there."
        ),
        shown,
    )


def hardest(data: ReportData) -> str:
    """The examples with the worst answers, each with its beliefs over the steps."""
    heading = "The hardest examples"
    if not data.hardest:
        return section("hardest", heading, omitted("None: no test example was kept for a look."))
    unit = _unit(data)
    cards = "\n".join(
        _card(rank, view, data.classes, unit) for rank, view in enumerate(data.hardest, start=1)
    )
    told = "The test examples that the network got most wrong"
    if any(view.label == view.prediction for view in data.hardest):
        told += ", then those that it got right most narrowly"
    if all(view.beliefs is None for view in data.hardest):
        told += f". {_no_steps(data)}"
    else:
        told += (
            f", and its belief after every {unit}: how the probabilities of the classes move as it "
            "reads."
        )
    if any(len(view.x) > MOST for view in data.hardest):
        told += (
            f" What is longer than {MOST} steps is drawn in {MOST} parts: beliefs as their means, "
            "lines through the lowest and highest values."
        )
    return section(
        "hardest",
        heading,
        note(told),
        '<p class="key"><span class="true">the true class</span> '
        '<span class="predicted">the class chosen</span> <span>others</span></p>',
        f'<div class="grid">\n{cards}\n</div>',
    )


def _card(rank: int, view: StepView, classes: list[str], unit: str) -> str:
    right = view.label == view.prediction
    verdict = (
        f'<strong class="true">{text(view.label)}</strong>, found'
        if right
        else f'<strong class="true">{text(view.label)}</strong> taken for '
        f'<strong class="predicted">{text(view.prediction)}</strong>'
    )
    story = _story(view, classes, unit)
    named = f"true class {plain(view.label)}, chosen {plain(view.prediction)}"
    label = f"Example {rank}: {named}. {story}"
    heading = f"<h3>{verdict}</h3>"
    if view.words is not None:
        heading += f'<p class="words">{text(" ".join(view.words))}</p>'
        if view.beliefs is None:
            return f"<article>{heading}{note(story)}</article>"
    svg = steps.step_by_step(f"hardest-{rank}", label, view, classes, unit)
    return f"<article>{heading}{markup.figure(svg, story)}</article>"


def _story(view: StepView, classes: list[str], unit: str) -> str:
    """What the beliefs did, in two sentences."""
    if view.beliefs is None:
        return f"{len(view.x)} {unit}s."
    last = view.beliefs[-1]
    true, chosen = classes.index(view.label), classes.index(view.prediction)
    shares = f"In the end {_share(last[chosen])} for {plain(view.prediction)}"
    if true != chosen:
        shares += f", {_share(last[true])} for {plain(view.label)}"
    top = view.beliefs.argmax(axis=1)
    changes = np.flatnonzero(top[1:] != top[:-1])
    if len(changes) == 0:
        return f"{shares}. The same class led from the first {unit} on."
    left = plain(classes[top[changes[-1]]])
    when = f"{unit} {changes[-1] + 2}"
    return f"{shares}. The last change of mind, away from {left}, came with {when}."


def _share(belief: float) -> str:
    return percent(belief, 1) if belief >= 0.0005 else f"under {percent(0.001, 1)}"


def hidden(data: ReportData) -> str:
    """A heat map of the hidden states of one example."""
    heading = "Hidden states"
    view = next((view for view in data.hardest if view.states is not None), None)
    if view is None:
        return section("states", heading, omitted("No heat map: no hidden states were kept."))
    assert view.states is not None
    n_steps, n_units = view.states.shape
    bound = float(np.abs(view.states).max())
    label = (
        f"Heat map of {n_units} hidden units over {n_steps} steps of an example of class "
        f"{plain(view.label)}; values between {view.states.min():.2f} and {view.states.max():.2f}"
    )
    svg = steps.hidden_states(label, view, _unit(data))
    scale = f'<p class="scale"><span>\u2212{bound:.2f}</span><i></i><span>{bound:.2f}</span></p>'
    return section(
        "states",
        heading,
        note(
            f"The top layer's state after every step of an example of class {plain(view.label)}, "
            "its units ordered by their value after the last step."
        ),
        markup.figure(svg, below=scale, wide=True),
    )


def _too_many(data: LabelledAnswers) -> str:
    return omitted(
        f"None: there are {count(len(data.classes))} classes, more than {count(MAX_IMAGE_CLASSES)}."
    )


def _confusion(data: LabelledAnswers) -> np.ndarray:
    n_classes = len(data.classes)
    pairs = data.y_true * n_classes + data.y_pred
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def _unit(data: ReportData) -> str:
    if any(view.words is not None for view in data.hardest):
        return "word"
    images = bool(data.hardest) and all(steps.is_image(view.x) for view in data.hardest)
    return "row" if images else "step"


def _no_steps(data: ReportData) -> str:
    bidirectional = any(
        group.get("bidirectional")
        for group in (data.config, *data.config.values())
        if isinstance(group, dict)
    )
    if bidirectional:
        return "No beliefs by step: a bidirectional network reads from both ends at once."
    return "No beliefs by step: they were not computed for this run."


IN_ORDER: list[Callable[[ReportData], str]] = [
    measured,
    network,
    training,
    by_step,
    confusion,
    per_class,
    by_length,
    calibration,
    hardest,
    hidden,
    frame.configuration,
    frame.environment,
]
_CONTENTS = [
    ("measures", "Measures"),
    ("network", "Network"),
    ("training", "Training"),
    ("steps", "By step"),
    ("confusion", "Confusion"),
    ("classes", "Classes"),
    ("where", "By length"),
    ("calibration", "Calibration"),
    ("hardest", "Hardest"),
    ("states", "Hidden states"),
    ("configuration", "Configuration"),
    ("environment", "Environment"),
]
