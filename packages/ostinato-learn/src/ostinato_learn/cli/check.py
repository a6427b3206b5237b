"""ostinato check FILE|RUN"""

from __future__ import annotations

import logging
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ostinato_learn import tasks
from ostinato_learn.cli.flags import ConfigFile, Sets, with_flags
from ostinato_learn.cli.output import AsJson, Quiet, hush, say, say_json
from ostinato_learn.cli.train import asked_for
from ostinato_learn.jobs import registry
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import config as configuration
from ostinato_learn.jobs.inputs import partition, sources
from ostinato_learn.jobs.inputs.config import Config, Given
from ostinato_learn.jobs.inputs.task import check_used, task_of, with_defaults
from ostinato_learn.jobs.runs import runs

if TYPE_CHECKING:
    from ostinato_learn.data.checks import Finding
    from ostinato_learn.data.sequences.examples import Examples

SERIOUS = 1  # the exit code
WIDTH = 100
# With one of these flags, the parts are those that a training draws.
DRAWS = ("data.test_fraction", "training.seed")

_log = logging.getLogger(__name__)


@with_flags("data", "task", "training.seed")
def check(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|RUN|mnist|vowels|austen", help="Data; or a run, for its parts."
        ),
    ],
    given: Given,
    config: ConfigFile = None,
    set_: Sets = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Look for errors in data: leaks, copies, label shortcuts, gaps. Exit code 1 if serious.

    The flags are those of train for reading and dividing data and for the task. With
    --test-fraction or --seed the test part is drawn as for a training with them.
    """
    hush(quiet)
    is_run = Path(what).is_dir() and what not in sources.BUILT_IN
    if is_run:
        if given or config or set_:
            flags = [configuration.OPTIONS[key].flag for key in given]
            flags += ["--config"] * bool(config) + ["--set"] * bool(set_)
            raise BadInput(f"{flags[0]} is for a file; the run in {what} has its own data")
        settings = _config_of(Path(what))
    else:
        given = asked_for(what, config, set_, given)
        settings = configuration.resolve(given)
        _check_used(settings, given)
    looked = _at_texts if _is_language(settings) else _at_sequences
    sizes, head, findings = looked(what, settings, given, is_run)
    n_serious = sum(finding.severity == "serious" for finding in findings)
    if as_json:
        say_json(
            {
                "source": settings.data.source,
                **sizes,
                "serious": n_serious,
                "findings": [finding.as_json() for finding in findings],
            }
        )
    else:
        say("\n\n".join([head, *map(_told, findings), _sum(findings)]))
    if n_serious:
        raise typer.Exit(SERIOUS)


def _at_sequences(
    what: str, settings: Config, given: Given, is_run: bool
) -> tuple[dict[str, Any], str, list[Finding]]:
    """The sizes for --json, a line about the data, and the findings."""
    train, test = _sides(settings, is_run, given)

    from ostinato_learn.data import checks

    sizes = {"sequences": len(train), "test_sequences": None if test is None else len(test)}
    findings = checks.check(train, test)
    missing = given.get("data.missing", "error")
    if missing != "error":
        findings = [_filled(finding, missing) for finding in findings]
    return sizes, _head(what, train, test), findings


def _at_texts(
    what: str, settings: Config, given: Given, is_run: bool
) -> tuple[dict[str, Any], str, list[Finding]]:
    """The same for documents."""
    from statistics import median_low

    from ostinato_learn.data import checks
    from ostinato_learn.data.checks.finding import plural
    from ostinato_learn.jobs import documents as texts

    if not is_run:  # only the given parts
        settings = with_defaults(settings, given).updated({"training.validation_fraction": 0.0})
    documents, parts = texts.to_check(settings, is_run or _wants_parts(given))
    train, task = documents.texts, settings.task
    findings = checks.check_texts(
        train,
        None if parts is None else parts.test,
        None if parts is None else parts.validation,
        groups=documents.groups,
        level=task.level,
        vocabulary=task.vocabulary,
    )
    lengths = sorted(map(len, train))
    n_test = None if parts is None else len(parts.test)
    shortest, median, longest = lengths[0], median_low(lengths), lengths[-1]
    sizes = {
        "documents": len(train),
        "test_documents": n_test,
        "characters": {"shortest": shortest, "median": median, "longest": longest},
    }
    head = (
        f"{what}: {plural(len(train), 'document')}"
        + ("" if n_test is None else f" for training, {n_test:,} for testing")
        + f"; {shortest:,} to {longest:,} characters, the median {median:,}"
    )
    return sizes, head, findings


def _is_language(settings: Config) -> bool:
    source = sources.known(settings.data.source)
    return source == "austen" or settings.task.language is not None or sources.is_text(source)


def _check_used(settings: Config, given: Given) -> None:
    """Raise BadInput for a flag without effect; log a flag that only a training uses."""
    source, task = str(settings.data.source), settings.task
    named = any(getattr(task, name) is not None for name in tasks.NAMES)
    if named or source in sources.BUILT_IN or not sources.is_table(source):
        check_used(task_of(settings), given)
    elif of_tasks := [key for key in given if key.startswith("task.")]:
        flag = configuration.OPTIONS[of_tasks[0]].flag
        raise BadInput(f"{flag} is for one task; name the target, too, as --classify COLUMN does")
    if task.horizon is None and {"task.context", "task.season"} & given.keys():
        raise BadInput("--context and --season need --horizon N: how many steps ahead?")
    if given.get("data.standardize") is False:
        _log.warning("--no-standardize changes nothing here: check reads the values of the file")


def _wants_parts(given: Given) -> bool:
    return any(key in given for key in DRAWS)


def _filled(finding: Finding, missing: str) -> Finding:
    """A finding about data whose missing values a training fills in."""
    if finding.code != "missing-values":
        return finding
    return replace(finding, remedy=f"nothing: with --missing {missing} a training accepts them")


def _config_of(path: Path) -> Config:
    trained = runs.find(path)
    if trained.config is None:
        raise BadInput(f"{path} is a model without a run; name the FILE to check")
    return trained.config


def _sides(settings: Config, is_run: bool, given: Given) -> tuple[Examples, Examples | None]:
    """The training (with validation) part and the test part; None: one file, not split."""
    data, task = settings.data, settings.task
    sources.check(data)
    source = sources.known(data.source)
    # Missing values are a finding, not an error; the validation part counts as training.
    settings = replace(settings, data=replace(data, missing="mask")).updated(
        {"training.validation_fraction": 0.0}
    )
    if task.forecast is not None:  # the ends of the series are the test part
        drawn = False
        if task.horizon is not None and not is_run:
            registry.read(settings, given)  # refuses series that are too short
    else:
        drawn = is_run or _wants_parts(given)
    if source in sources.BUILT_IN or (drawn and data.test is None and data.split is None):
        parts = partition.load(settings)
        return parts.train, parts.test
    everything = sources.read(source, settings)
    if data.test is not None:
        return everything, sources.read(sources.known(data.test), settings)
    return _divided(everything) if everything.parts is not None else (everything, None)


def _divided(everything: Examples) -> tuple[Examples, Examples | None]:
    """Parts named by a column, which may put a group on both sides; check reports that."""
    import numpy as np

    from ostinato_learn.data.sequences import splits

    parts = splits.split(replace(everything, groups=None))
    test = parts.pop("test", None)
    seen = np.sort(np.concatenate(list(parts.values())))
    return everything.select(seen), None if test is None else everything.select(test)


def _head(what: str, train: Examples, test: Examples | None) -> str:
    n_features = max(1, sources.n_features(train.sequences))  # a forecast may have only the series
    shortest, longest = int(train.lengths.min()), int(train.lengths.max())
    steps = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
    return (
        f"{what}: {len(train):,} sequences"
        + ("" if test is None else f" for training, {len(test):,} for testing")
        + f"; {steps} steps, {n_features} feature{'' if n_features == 1 else 's'}"
    )


def _told(finding: Finding) -> str:
    """A finding as lines of text."""
    message = f"{finding.severity}: {finding.message} [{finding.code}]"
    lines = [_wrapped(message, "")]
    for what, text in (("where", "; ".join(finding.places)), ("do", finding.remedy)):
        if text:
            lines.append(_wrapped(f"{what}: {text}", "  "))
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> str:
    """Text in lines, without a break between a number and its "%"."""
    joined = text.replace(" %", "\u00a0%")
    lines = textwrap.fill(
        joined, WIDTH, initial_indent=indent, subsequent_indent="    ", break_on_hyphens=False
    )
    return lines.replace("\u00a0", " ")


def _sum(findings: list[Finding]) -> str:
    if not findings:
        return "nothing found"
    counts = Counter(str(finding.severity) for finding in findings)
    names = {"serious": "serious", "warning": "warnings", "note": "notes"}
    phrases = [f"{counts[one]} {one if counts[one] == 1 else many}" for one, many in names.items()]
    return ", ".join(phrases)
