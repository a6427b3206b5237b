"""The sections of the report of a classifier whose sequences may have several labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ostinato.metrics import label_sets as label_metrics
from ostinato.report import frame, groups, markup
from ostinato.report.frame import tile
from ostinato.report.markup import count, note, omitted, percent, plain, section, text
from ostinato.report.several import SetView, SeveralData, commonest_sets

SHOWN_WORDS = 80  # of a hard example


def header(data: SeveralData) -> str:
    """The heading, the numbers that matter, and the way to the sections."""
    found = label_metrics.measure(data.y_true, data.y_pred)
    n = count(len(data.y_true))
    tiles = [
        tile(percent(found["label_accuracy"]), f"labels right, of {n} test examples"),
        tile(percent(found["f1"]), "F1 of labels", "over all labels of all examples"),
        tile(percent(found["accuracy"]), "examples with all labels right"),
    ]
    if loss := data.evaluation.get("test", {}).get("loss"):
        tiles.append(tile(f"{loss:.4f}", "test loss", "mean over labels, nats"))
    parameters = None if data.network is None else data.network.parameters
    tiles += frame.training_tiles(data, parameters)
    there = {"where": _by_length(data) is not None}
    shown = [(identity, name) for identity, name in _CONTENTS if there.get(identity, True)]
    return frame.head(data, _sizes(data), tiles, shown)


def _sizes(data: SeveralData) -> str:
    low, high = int(data.each_length.min()), int(data.each_length.max())
    sequences = frame.sequences(data, len(data.y_true), low, high)
    mean = data.y_true.sum(axis=1).mean()
    return f"{sequences}, {count(len(data.labels))} labels, {mean:.2f} of them a sequence"


def measured(data: SeveralData) -> str:
    """The measures of the network, beside those of the baselines."""
    return frame.beside_baselines(data, "several")


def network(data: SeveralData) -> str:
    """The drawing and the sizes of the network."""
    return frame.network(data.network)


def training(data: SeveralData) -> str:
    """The loss over the iterations, and the share of examples with all labels right."""
    told = (
        "Loss (mean cross-entropy of a label, nats) of a batch before its update, and the share "
        "of its examples with all labels right."
    )
    return frame.training(data, told, accuracy=True)


def per_label(data: SeveralData) -> str:
    """Precision, recall and F1 of each label, and their means."""
    scores = label_metrics.of_labels(data.y_true, data.y_pred)
    rows = [
        markup.row(
            name,
            [
                *(percent(float(each[c])) for each in scores),
                count(int(data.y_true[:, c].sum())),
                count(int(data.y_pred[:, c].sum())),
            ],
        )
        for c, name in enumerate(data.labels)
    ]
    means = [float(each[there].mean()) if (there := ~np.isnan(each)).any() else float("nan")
             for each in scores]  # fmt: skip
    total = [count(int(each.sum())) for each in (data.y_true, data.y_pred)]
    rows.append(markup.row("mean over labels", [*map(percent, means), *total], "mean"))
    return section(
        "classes",
        "Labels",
        note(
            "A label is given where its probability is above one half. Precision: how many of "
            "those given it have it. Recall: how many of those that have it were given it. A "
            "dash: never given, or never there."
        ),
        markup.table(
            "Scores of each label on the test examples",
            ["label", "precision", "recall", "F1", "true", "given"],
            rows,
            "numbers classes",
        ),
    )


def sets(data: SeveralData) -> str:
    """The commonest sets of labels, and how often each was given whole."""
    found = commonest_sets(data)
    rows = [
        markup.row(name or "(no label)", [count(n), percent(right / n)]) for name, n, right in found
    ]
    more = len(np.unique(data.y_true, axis=0)) - len(found)
    told = "The commonest sets of labels, and how often the whole set was given."
    return section(
        "sets",
        "Sets of labels",
        note(told + (f" {count(more)} further sets are rarer." if more else "")),
        markup.table("Sets of labels", ["labels", "examples", "all right"], rows, "numbers"),
    )


def where(data: SeveralData) -> str:
    """Nothing where all sequences are of the same length."""
    found = _by_length(data)
    if found is None:
        return ""
    shown = [("by-length", "length of the sequence", found, "")]
    return groups.where(shown, "Labels right by length")


def _by_length(data: SeveralData) -> groups.Groups | None:
    right = (data.y_true == data.y_pred).sum(axis=1)
    each = np.full(len(right), len(data.labels))
    return groups.by_length(data.each_length, each, right)


def calibration(data: SeveralData) -> str:
    """Whether a decision for or against a label is right as often as the network is sure."""
    sure = np.maximum(data.proba, 1 - data.proba).ravel()
    return groups.calibration(sure, (data.y_true == data.y_pred).ravel(), "decisions")


def hardest(data: SeveralData) -> str:
    """The examples with the least likely labels: which were missed, and which invented."""
    heading = "The hardest examples"
    if not data.hardest:
        return section("hardest", heading, omitted("None: every label is right."))
    cards = "\n".join(map(_card, data.hardest))
    return section(
        "hardest",
        heading,
        note("The examples whose labels the network held for least likely."),
        '<p class="key"><span class="true">labels that it has</span> '
        '<span class="predicted">given, but not there</span></p>',
        f'<div class="grid">\n{cards}\n</div>',
    )


def _card(view: SetView) -> str:
    lines = []
    if view.missed:
        lines.append(f"Missed: {_named(view.missed, 'true')}.")
    if view.invented:
        lines.append(f"Given, but not there: {_named(view.invented, 'predicted')}.")
    if view.right:
        lines.append(f"Right: {_named(view.right, 'true')}.")
    words = " ".join(view.words[:SHOWN_WORDS]) + " …" * (len(view.words) > SHOWN_WORDS)
    read = f'<p class="words">{text(words)}</p>' if words else ""
    told = "".join(f"<p>{line}</p>" for line in lines)
    return f"<article><h3>{text(plain(view.name))}</h3>{read}{told}</article>"


def _named(labels: tuple[str, ...], css_class: str) -> str:
    return ", ".join(f'<strong class="{css_class}">{text(label)}</strong>' for label in labels)


IN_ORDER: list[Callable[[SeveralData], str]] = [
    measured,
    network,
    training,
    per_label,
    sets,
    where,
    calibration,
    hardest,
    frame.configuration,
    frame.environment,
]
_CONTENTS = [
    ("measures", "Measures"),
    ("network", "Network"),
    ("training", "Training"),
    ("classes", "Labels"),
    ("sets", "Sets"),
    ("where", "By length"),
    ("calibration", "Calibration"),
    ("hardest", "Hardest"),
    ("configuration", "Configuration"),
    ("environment", "Environment"),
]
