"""Tagging: strokes of a sensor whose best possible accuracy is known, and marks between words.

    python -m benchmarks.studies.tagging strokes      five seeds: data, baselines, networks
    python -m benchmarks.studies.tagging marks        Austen without her punctuation
    python -m benchmarks.studies.tagging novels       the same, learnt from five novels
    python -m benchmarks.studies.tagging page         its tables in results/tasks.md anew

Each run adds lines to a file of results (--results).

**Strokes.** A hidden Markov chain walks through four phases, over and over. Three strokes pass the
same four positions in other orders, so that a single step says nothing of the stroke. Now and then
the stroke changes. A sensor measures the position with noise. The chain is known to the program
that made it: its posterior, by the forward-backward algorithm, has the highest accuracy that any
tagger can have.

**Marks.** The words of a novel in lower case, without punctuation, in blocks of 64; the label of a
word is the mark that follows it: none, a comma, or the end of a sentence. *Emma*, or five novels,
are learnt from; *Persuasion* is measured on.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato_learn import SequenceTagger, datasets
from ostinato_learn.metrics.spans import span_scores

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "tagging.jsonl"
PAGE = ROOT / "benchmarks" / "results" / "tasks.md"
SEEDS = range(5)

# Strokes: the corners of a square in the order in which each stroke passes them.
CORNERS = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
ORDERS = {"crawl": [0, 1, 2, 3], "back": [3, 2, 1, 0], "butterfly": [0, 2, 1, 3]}
NOISE, ADVANCE, CHANGE = 0.7, 0.5, 0.04
N_TRAIN, N_TEST = 2000, 400
SETTINGS = {"batch_size": 32, "eval_every": 100}
WINDOW = 4  # steps at each side that some of the baselines see

# Marks.
TRAIN, TEST = "Emma", "Persuasion"
BLOCK = 64
NEIGHBOURS = 2
MARKS = {",": "B-comma", ".": "B-stop", "!": "B-stop", "?": "B-stop"}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["strokes", "marks", "novels", "page"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "page":
        write_page(options.results)
        return
    study = {"strokes": strokes, "marks": marks, "novels": novels}[options.what]
    for seed in options.seeds:
        for row in study(seed):
            table = "marks" if options.what == "novels" else options.what
            line = json.dumps({"study": table, "seed": seed, **row})
            print(line, flush=True)
            with options.results.open("a", encoding="utf-8") as file:
                print(line, file=file)


# Strokes


def chain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hidden chain: transitions `[S, S]`, position `[S, 2]` and stroke `[S]` of each state."""
    strokes, phases = len(ORDERS), len(CORNERS)
    A = np.zeros((strokes, phases, strokes, phases))
    for s in range(strokes):
        for p in range(phases):
            A[s, p, s, p] += (1 - CHANGE) * (1 - ADVANCE)
            A[s, p, s, (p + 1) % phases] += (1 - CHANGE) * ADVANCE
            for other in set(range(strokes)) - {s}:
                A[s, p, other, :] += CHANGE / (strokes - 1) / phases
    positions = np.concatenate([CORNERS[order] for order in ORDERS.values()])
    return A.reshape(strokes * phases, -1), positions, np.repeat(np.arange(strokes), phases)


def recordings(n: int, seed: tuple[int, ...]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """n recordings of 40 to 120 steps with the number of the stroke at each step."""
    rng = np.random.default_rng(seed)
    A, positions, stroke = chain()
    X, y = [], []
    for _ in range(n):
        states = [rng.integers(len(A))]
        for _ in range(rng.integers(40, 121) - 1):
            states.append(rng.choice(len(A), p=A[states[-1]]))
        X.append(positions[states] + NOISE * rng.normal(size=(len(states), 2)))
        y.append(stroke[states])
    return X, y


def best_possible(x: np.ndarray) -> np.ndarray:
    """The likeliest stroke at each step of a recording, for one who knows the chain."""
    A, positions, stroke = chain()
    likelihood = np.exp(-((x[:, None] - positions) ** 2).sum(2) / (2 * NOISE**2))  # [T, S]
    forward, backward = np.empty_like(likelihood), np.ones_like(likelihood)
    forward[0] = likelihood[0] / likelihood[0].sum()  # the chain starts in any state
    for t in range(1, len(x)):
        forward[t] = forward[t - 1] @ A * likelihood[t]
        forward[t] /= forward[t].sum()
    for t in range(len(x) - 2, -1, -1):
        backward[t] = A @ (likelihood[t + 1] * backward[t + 1])
        backward[t] /= backward[t].sum()
    posterior = forward * backward
    return np.stack([posterior[:, stroke == s].sum(1) for s in range(len(ORDERS))], 1).argmax(1)


def window(x: np.ndarray, reach: int) -> np.ndarray:
    """Each step with `reach` steps at each side, `[T, (2 · reach + 1) · F]`; zeros beyond."""
    padded = np.pad(x, ((reach, reach), (0, 0)))
    return np.concatenate([padded[i : i + len(x)] for i in range(2 * reach + 1)], axis=1)


def strokes(seed: int) -> Iterator[Row]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    X, y = recordings(N_TRAIN, (seed, 0))
    X_test, y_test = recordings(N_TEST, (seed, 1))
    labels, test_labels = np.concatenate(y), np.concatenate(y_test)
    common = np.bincount(labels).argmax()
    yield {"model": "majority", "accuracy": float((test_labels == common).mean())}
    for name, reach, model in (
        ("logistic regression, a step", 0, LogisticRegression(max_iter=1000)),
        ("logistic regression, 9 steps", WINDOW, LogisticRegression(max_iter=1000)),
        ("gradient boosting, 9 steps", WINDOW, HistGradientBoostingClassifier(random_state=seed)),
    ):
        model.fit(np.concatenate([window(x, reach) for x in X]), labels)
        score = model.score(np.concatenate([window(x, reach) for x in X_test]), test_labels)
        yield {"model": name, "accuracy": float(score)}
    for name, parameters in {
        "LSTM, forwards only": {"bidirectional": False},
        "bi-LSTM": {},
        "bi-LSTM, CRF": {"crf": True},
    }.items():
        begin = time.perf_counter()
        tagger = SequenceTagger(
            random_state=seed, validation_fraction=0.1, **SETTINGS, epochs=20, **parameters
        )
        tagger.fit(X, y)
        seconds = time.perf_counter() - begin
        yield {"model": name, "accuracy": tagger.score(X_test, y_test), "seconds": seconds}
    best = np.concatenate([best_possible(x) for x in X_test])
    yield {"model": "the best possible", "accuracy": float((best == test_labels).mean())}


# Marks


def blocks(text: str) -> tuple[list[list[str]], list[list[str]]]:
    """The words of a text in lower case, in blocks, and the mark after each."""
    text = re.sub(r"\b(mr|mrs|dr|st|esq)\.", r"\1", text.lower())  # no sentence ends there
    found = re.findall(r"([a-z]+(?:['’-][a-z]+)*)([^a-z]*)", text)
    words = [word for word, _ in found]
    tags = [next((MARKS[c] for c in after if c in MARKS), "O") for _, after in found]
    starts = range(0, len(words), BLOCK)
    return [words[i : i + BLOCK] for i in starts], [tags[i : i + BLOCK] for i in starts]


def around(words: list[str]) -> list[dict[str, int]]:
    """For each word, the words at each distance as features."""
    padded = [""] * NEIGHBOURS + words + [""] * NEIGHBOURS
    size = 2 * NEIGHBOURS + 1
    return [{f"{i} {padded[t + i]}": 1 for i in range(size)} for t in range(len(words))]


def marks(seed: int) -> Iterator[Row]:
    yield from marked([TRAIN], "", 5, seed)


def novels(seed: int) -> Iterator[Row]:
    yield from marked(set(datasets.austen()) - {TEST}, "; five novels", 3, seed)


def marked(learnt: Collection[str], name: str, epochs: int, seed: int) -> Iterator[Row]:
    """Learn from the novels of these titles; the rows' names end with `name`."""
    texts = datasets.austen()
    parts = [blocks(text) for title, text in texts.items() if title in learnt]
    X, y = ([block for part in parts for block in part[i]] for i in (0, 1))
    X_test, y_test = blocks(texts[TEST])
    if seed == SEEDS[0]:  # these do not depend on a seed
        baselines = {
            f"the word's commonest mark{name}": by_word(X, y, X_test),
            f"logistic regression, 5 words{name}": linear(X, y, X_test),
        }
        if not name:
            baselines = {"no marks": [["O"] * len(block) for block in y_test], **baselines}
        for model, predicted in baselines.items():
            yield {"model": model, **measures(y_test, predicted)}
    begin = time.perf_counter()
    tagger = SequenceTagger(
        scheme="iob2",
        epochs=epochs,
        dropout=0.3,
        validation_fraction=0.05,
        random_state=seed,
        **SETTINGS,
    )
    tagger.fit(X, y)
    seconds = time.perf_counter() - begin
    predicted = [labels.tolist() for labels in tagger.predict(X_test)]
    yield {"model": f"bi-LSTM{name}", **measures(y_test, predicted), "seconds": seconds}


def by_word(X: list[list[str]], y: list[list[str]], X_test: list[list[str]]) -> list[list[str]]:
    counts: dict[str, Counter[str]] = {}
    for block, tags in zip(X, y, strict=True):
        for word, tag in zip(block, tags, strict=True):
            counts.setdefault(word, Counter())[tag] += 1
    commonest = {word: count.most_common(1)[0][0] for word, count in counts.items()}
    return [[commonest.get(word, "O") for word in block] for block in X_test]


def linear(X: list[list[str]], y: list[list[str]], X_test: list[list[str]]) -> list[list[str]]:
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    hasher = FeatureHasher(2**20)
    model = SGDClassifier(loss="log_loss", alpha=1e-6, random_state=0)
    features = hasher.transform(row for block in X for row in around(block))
    model.fit(features, [tag for tags in y for tag in tags])
    return [model.predict(hasher.transform(around(block))).tolist() for block in X_test]


def measures(true: list[list[str]], predicted: list[list[str]]) -> Row:
    scores = span_scores(true, predicted)
    return {
        "accuracy": float(np.mean(np.concatenate(true) == np.concatenate(predicted))),
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
    }


# The page


def write_page(results: Path) -> None:
    """Replace its tables in benchmarks/results/tasks.md."""
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    text = PAGE.read_text(encoding="utf-8")
    for study, columns in {
        "strokes": ("accuracy",),
        "marks": ("accuracy", "precision", "recall", "f1"),
    }.items():
        table = "\n".join(lines_of([row for row in rows if row["study"] == study], columns))
        begin, end = f"<!-- {study} -->", f"<!-- end of {study} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text, encoding="utf-8")


def lines_of(rows: list[Row], columns: tuple[str, ...]) -> Iterator[str]:
    """A table: of each model the mean over its seeds, and how far they spread in accuracy."""
    yield "| | seeds | " + " | ".join({"f1": "F1"}.get(c, c) for c in columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        cells = [_cell(column, [row[column] for row in of_model]) for column in columns]
        yield f"| {model} | {len(of_model)} | " + " | ".join(cells) + " |"


def _cell(column: str, values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.2f} %"
    if column != "accuracy" or len(values) == 1:
        return mean
    return f"{mean} ({100 * min(values):.2f}–{100 * max(values):.2f})"


if __name__ == "__main__":
    main()
