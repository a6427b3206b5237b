"""Every public name of the runtime has an example, and all of them run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import saved_models as saved

import ostinato_learn
from ostinato_learn import tasks
from ostinato_learn.data.series.panel import as_panel

# What a user gets into their hands: functions, and classes with all their public methods.
PUBLIC = {
    "": {"load", "verify"},
    "model": {"Model"},
    "classify": {"Classifier"},
    "tag": {"Tagger"},
    "language": {"LanguageModel"},
    "forecast": {"Forecaster"},
    "regress": {"Regressor"},
    "stream": {"Stream", "StreamCost"},
    "pool": {"Pool"},
    "answers": {"Answer", "Answers", "KeyedAnswers"},
    "saved.replay": {"Verified"},
}
# The methods that a page calls are for users; the others are for the rest of the package.
PAGES = (Path(__file__).parents[4] / "docs").glob("*.md")
CALLED = set(re.findall(r"\.(\w+)\(", "".join(page.read_text("utf-8") for page in PAGES)))


def module(name: str):
    if name in tasks.NAMES:
        return importlib.import_module(f"ostinato_learn.tasks.{name}.model")
    place = "" if name.startswith("saved.") else "runtime."
    return importlib.import_module(f"ostinato_learn.{place}{name}".removesuffix("."))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The models that the examples load, below `runs`."""
    runs = tmp_path_factory.mktemp("examples") / "runs"
    labels = np.array(["down", "up"])[np.arange(saved.N) % 2]
    saved.classifier(runs / "gru" / "model", labels, cell="gru")
    saved.tagger(runs / "tags" / "model", bidirectional=False)
    saved.tagger(runs / "both" / "model", bidirectional=True)
    saved.language_model(runs / "keys" / "model")
    saved.forecaster(runs / "sales" / "model")
    return runs.parent


@pytest.mark.parametrize("name", PUBLIC)
def test_the_examples_run(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    globs = {**vars(module(name)), "np": np, "ostinato_learn": ostinato_learn, "as_panel": as_panel}
    result = doctest.testmod(module(name), globs=globs)
    assert result.failed == 0 and result.attempted >= len(PUBLIC[name])


def examples(thing) -> str:
    parsed = doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "")
    return "".join(example.source for example in parsed)


@pytest.mark.parametrize(("name", "public"), [(m, p) for m in PUBLIC for p in sorted(PUBLIC[m])])
def test_every_public_name_has_an_example(name, public):
    thing = getattr(module(name), public)
    text = examples(thing)
    assert text, f"{public} has no example"
    if inspect.isclass(thing):
        own = {n for n in vars(thing) if not n.startswith("_")} & CALLED
        assert not {n for n in own if f".{n}" not in text}, public


def test_the_list_of_public_classes_is_whole():
    """A class without an underscore in the runtime's modules is in the list, or for the inside."""
    inside = {"AnyNetwork", "BatchAnswers"}
    for name in PUBLIC.keys() - set(tasks.NAMES):
        found = {
            n
            for n, thing in vars(module(name)).items()
            if inspect.isclass(thing)
            and thing.__module__ == module(name).__name__
            and not n.startswith("_")
        }
        assert found - inside == {n for n in PUBLIC[name] if n[0].isupper()}
