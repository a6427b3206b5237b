"""The sections of a tagger's report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ostinato.report import frame, groups, lanes, markup, sections
from ostinato.report.frame import interval, tile
from ostinato.report.markup import count, note, omitted, percent, plain, section, text
from ostinato.report.svg import LABELS
from ostinato.report.tagging import TaggingData, TagView

KINDS = {  # of span errors, see `span_metrics.span_errors`
    "right": "found as they are",
    "wrong type": "found with another type",
    "wrong extent": "found with another beginning or end",
    "wrong both": "overlapped by one of another type and extent",
    "missed": "missed",
    "spurious": "predicted where there is none",
}


def header(data: TaggingData) -> str:
    """The heading, the numbers that matter, and the way to the sections."""
    test = data.evaluation.get("test", {})
    n = len(data.y_true)
    accuracy = test.get("accuracy", float((data.y_true == data.y_pred).mean()))
    low, high = interval(accuracy, n)
    told = f"95\u202f% interval of independent steps {percent(low)} to {percent(high)}"
    if "baselines" not in data.evaluation:
        chance = float(np.bincount(data.y_true).max() / n)
        told += f"; the most frequent of them alone: {percent(chance)}"
    tiles = [tile(percent(accuracy), f"of {count(n)} test labels are right", told)]
    if data.spans is not None:
        f1 = test.get("f1", data.spans.f1)
        tiles.append(tile(percent(f1), "F1 of spans", f"{count(data.spans.n_true)} spans"))
    if "loss" in test:
        tiles.append(tile(f"{test['loss']:.4f}", "test loss", "nats a step"))
    tiles += frame.training_tiles(data, data.parameters)
    shown = [(i, n) for i, n in _CONTENTS if i != "spans" or data.spans is not None]
    return frame.head(data, _sizes(data), tiles, shown)


def _sizes(data: TaggingData) -> str:
    low, high = int(data.lengths.min()), int(data.lengths.max())
    sequences = frame.sequences(data, len(data.lengths), low, high)
    read = f" of {data.read}" if data.read else ""
    return f"{sequences}{read}, {count(len(data.classes))} labels"


def measured(data: TaggingData) -> str:
    """The measures of the network and of its spans, beside those of the baselines."""
    spans = {}
    if data.spans is not None:
        spans = {name: getattr(data.spans, name) for name in ("precision", "recall", "f1")}
    return frame.beside_baselines(data, "tag", spans)


def training(data: TaggingData) -> str:
    """The loss of the training over its iterations, and the accuracy where it was measured."""
    told = "Loss (\u2212log P of the labels, nats a step) and accuracy of a batch's steps."
    accuracy = bool(data.metrics) and "train_accuracy" in data.metrics[0]
    return frame.training(data, told, accuracy=accuracy)


def spans(data: TaggingData) -> str:
    """Nothing where labels write no spans."""
    if data.spans is None or data.span_errors is None:
        return ""
    scores = [
        markup.row(
            kind or "(no type)",
            [
                *map(percent, (each.precision, each.recall, each.f1)),
                *map(count, (each.n_true, each.n_predicted)),
            ],
        )
        for kind, each in data.spans.by_type.items()
    ]
    header = ["type", "precision", "recall", "F1", "true", "predicted"]
    errors = [markup.row(KINDS[k], [count(n)]) for k, n in data.span_errors.items()]
    return section(
        "spans",
        "Spans",
        note("A span is right if its type, its first and its last step are."),
        markup.table("Spans of each type", header, scores, "numbers"),
        '<div class="gap"></div>',
        markup.table("What became of the spans", ["spans", "how many"], errors, "numbers"),
    )


def per_class(data: TaggingData) -> str:
    """Precision, recall and F1 of each label, over the steps."""
    return sections.per_class(data, "label", "steps")


def where(data: TaggingData) -> str:
    """The accuracy by the position of the step, and by the length of the sequence."""
    right = data.y_true == data.y_pred
    starts = np.cumsum(data.lengths) - data.lengths
    each = np.add.reduceat(right.astype(np.int64), starts)
    lengths = groups.by_length(data.lengths, data.lengths, each)
    same = f"No accuracy by length: all sequences have {count(int(data.lengths[0]))} steps."
    shown = [
        ("by-position", "position of the step", groups.by_position(data.lengths, right), ""),
        ("by-length", "length of the sequence", lengths, same),
    ]
    return groups.where(shown, "Where labels are right")


def calibration(data: TaggingData) -> str:
    """Whether a label is right as often as the network is sure."""
    return groups.calibration(data.confidence, data.y_true == data.y_pred, "labels")


def hardest(data: TaggingData) -> str:
    """The sequences with most errors, with true labels and those that the network gave."""
    heading = "The sequences with most errors"
    if not data.hardest:
        return section("hardest", heading, omitted("None: no label is wrong."))
    families = _families(data)
    colours = _colours(data, families)
    cards = "\n".join(
        _card(rank, view, data, colours) for rank, view in enumerate(data.hardest, start=1)
    )
    told = "Of a long sequence the part with most errors is shown."
    if data.hardest[0].words is not None:
        told = (
            "Under each word its true label, and in a frame the network's where it is another. "
            + told
        )
    return section(
        "hardest",
        heading,
        note(told),
        lanes.key(data.classes, colours, families),
        f'<div class="cards">\n{cards}\n</div>',
    )


def _card(rank: int, view: TagView, data: TaggingData, colours: lanes.Colours) -> str:
    end = view.start + len(view.true)
    part = (
        f", steps {count(view.start + 1)} to {count(end)}" if len(view.true) < view.length else ""
    )
    told = f"{count(view.n_wrong)} of {count(view.length)} labels wrong{part}"
    heading = f"<h3><strong>{text(view.name)}</strong>: {text(told)}</h3>"
    if view.words is not None:
        return f"<article>{heading}{lanes.words(view, data.classes, colours)}</article>"
    label = f"Sequence {plain(view.name)}: {told}. {_taken(view, data.classes)}"
    svg = lanes.svg(f"sequence-{rank}", label, view, data.classes, colours)
    return f"<article>{heading}{markup.figure(svg, wide=True)}</article>"


def _taken(view: TagView, classes: list[str]) -> str:
    """The most frequent mistake of a part, in words."""
    wrong = np.flatnonzero(view.true != view.predicted)
    pairs, counts = np.unique(
        np.stack([view.true[wrong], view.predicted[wrong]]), axis=1, return_counts=True
    )
    true, predicted = pairs[:, counts.argmax()]
    return f"Most often {plain(classes[true])} taken for {plain(classes[predicted])}."


def _families(data: TaggingData) -> list[str]:
    """The name of each label; where labels write spans, the type of its span, "" outside."""
    if data.scheme is None:
        return list(data.classes)
    return [name.partition("-")[2] if name != "O" else "" for name in data.classes]


def _colours(data: TaggingData, families: list[str]) -> lanes.Colours:
    """A colour for each of the families that the sequences show most of; the rest share one."""
    shown = np.concatenate([[*view.true, *view.predicted] for view in data.hardest])
    counts = np.bincount(shown.astype(np.int64), minlength=len(families))
    total: dict[str, int] = {}
    for family, n in zip(families, counts.tolist(), strict=True):
        total[family] = total.get(family, 0) + n
    outside = "" if data.scheme is not None else None
    ranked = sorted((f for f in total if f != outside and total[f]), key=lambda f: -total[f])
    # Colours follow the order of the labels, so that a report of the same data has the same ones.
    coloured = sorted(ranked[: len(LABELS)], key=families.index)
    place = {family: i for i, family in enumerate(coloured)}
    return [
        None if family == outside or not total[family] else place.get(family, -1)
        for family in families
    ]


IN_ORDER: list[Callable[[TaggingData], str]] = [
    measured,
    training,
    spans,
    sections.confusion,
    per_class,
    where,
    calibration,
    hardest,
    frame.configuration,
    frame.environment,
]
_CONTENTS = [
    ("measures", "Measures"),
    ("training", "Training"),
    ("spans", "Spans"),
    ("confusion", "Confusion"),
    ("classes", "Labels"),
    ("where", "Where"),
    ("calibration", "Calibration"),
    ("hardest", "Most errors"),
    ("configuration", "Configuration"),
    ("environment", "Environment"),
]
