"""ostinato doctor"""

from __future__ import annotations

import math
import os
import platform
import sys
from dataclasses import asdict, dataclass
from typing import Any

import typer

from ostinato.internal import install
from ostinato_learn import environment
from ostinato_learn.cli.output import AsJson, say, say_json

MINIMAL_PYTHON = (3, 10)
BUSY = 0.5  # load per core from which on other programs slow a training down


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check.

    "absent" is a part that this installation does without, "slow" costs time, and "broken" means
    that something does not work.
    """

    name: str
    state: str  # "ok", "absent", "slow" or "broken"
    value: str
    advice: str = ""


def doctor(
    as_json: AsJson = False,
) -> None:
    """Check the installation, the engine and the threads."""
    findings = [*_python(), *_packages(), *_engine(), *_threads(), *_load(), *_denormals()]
    broken = any(f.state == "broken" for f in findings)
    if as_json:
        report: dict[str, Any] = {"healthy": not broken, "findings": [asdict(f) for f in findings]}
        say_json(report)
    else:
        say(_table(findings))
    if broken:
        raise typer.Exit(1)


def _table(findings: list[Diagnosis]) -> str:
    width = max(len(f.name) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.state:<6}  {f.name:<{width}}  {f.value}".rstrip())
        if f.advice:
            lines.append(" " * (width + 10) + f.advice)
    counts = {state: sum(f.state == state for f in findings) for state in ("slow", "broken")}
    if not any(counts.values()):
        lines.append("\nEverything is well.")
    else:
        lines.append(f"\n{counts['broken']} broken, {counts['slow']} where time would be lost.")
    return "\n".join(lines)


def _python() -> list[Diagnosis]:
    good = sys.version_info >= MINIMAL_PYTHON
    return [
        Diagnosis(
            "Python",
            "ok" if good else "broken",
            f"{platform.python_version()} ({sys.executable})",
            "" if good else "ostinato needs Python 3.10 or newer",
        ),
        Diagnosis(
            "machine",
            "ok",
            f"{environment.cpu_model()}, {environment.cores()} cores, {platform.system()}",
        ),
    ]


def _packages() -> list[Diagnosis]:
    needed = {"ostinato", "numpy", "safetensors", "typer"}
    findings, for_training = [], []
    for name, version in environment.packages().items():
        if version is not None:
            findings.append(Diagnosis(name, "ok", version))
        elif name in needed:
            advice = install("ostinato-learn")
            findings.append(Diagnosis(name, "broken", "not installed", advice))
        else:
            for_training.append(name)
    if for_training:
        advice = f"to train and evaluate: {install('ostinato-learn[torch]')}"
        value = f"not installed: {', '.join(for_training)}"
        findings.append(Diagnosis("training", "absent", value, advice))
    return findings


def _engine() -> list[Diagnosis]:
    """The native engine and its instruction set."""
    try:
        from ostinato.internal import native

        best, available = native.best_isa(), native.available_isas()
    except (ImportError, RuntimeError) as error:
        advice = f"to build it anew: {install('ostinato')} --force-reinstall --no-deps"
        return [Diagnosis("native engine", "broken", f"cannot be loaded: {error}", advice)]
    except ValueError as error:  # OSTINATO_ISA names an instruction set that this machine lacks
        return [Diagnosis("native engine", "broken", str(error), "unset OSTINATO_ISA")]
    try:
        native.threads_from_environment()
    except ValueError as error:
        return [Diagnosis("native engine", "broken", str(error), "unset OSTINATO_NUM_THREADS")]
    value = f"{best} (of {', '.join(available)})"
    if best == available[0] != "base":
        return [Diagnosis("native engine", "ok", value)]
    if best != available[0]:
        advice = f"OSTINATO_ISA={best} keeps {available[0]} from running"
    else:
        advice = "no vector kernel for this processor: PyTorch's own path is used"
    return [Diagnosis("native engine", "slow", value, advice)]


def _threads() -> list[Diagnosis]:
    cores = environment.cores()
    variable = os.environ.get("OMP_NUM_THREADS")
    said = f"OMP_NUM_THREADS={variable}" if variable else "OMP_NUM_THREADS not set"
    try:
        import torch
    except ImportError:
        return [Diagnosis("threads", "ok", f"{cores} cores, {said}")]
    threads = torch.get_num_threads()
    value = f"PyTorch uses {threads} of {cores} cores, {said}"
    if threads > cores:
        advice = f"more threads than cores wait for each other: --threads {cores}"
        return [Diagnosis("threads", "slow", value, advice)]
    if variable and threads < cores // 2:
        return [Diagnosis("threads", "slow", value, "cores stay idle: unset OMP_NUM_THREADS")]
    return [Diagnosis("threads", "ok", value)]


def _load() -> list[Diagnosis]:
    """Whether other programs use the cores, and whether a quota limits them."""
    cores, quota = environment.cores(), environment.cpu_quota()
    findings = []
    if quota is not None and quota < cores:
        findings.append(
            Diagnosis(
                "CPU quota",
                "slow",
                f"{quota:.2g} cores' time for {cores} threads, which sleep when it is used up",
                "give the container whole cores, or train with --threads "
                f"{max(1, math.floor(quota))}",
            )
        )
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        value = f"{load:.1f} on {cores} cores in the last minute"
        if load > BUSY * cores:
            advice = (
                "threads that share cores with another program wait for each other; in a script, "
                f"call torch.set_num_threads(1) and set OSTINATO_NUM_THREADS={cores}"
            )
            findings.append(Diagnosis("load", "slow", value, advice))
        else:
            findings.append(Diagnosis("load", "ok", value))
    return findings


def _denormals() -> list[Diagnosis]:
    """Numbers below 1e-38 are zeros to the engine; elsewhere the flag of the thread decides."""
    import numpy as np

    smallest = np.float32(1.2e-38)
    flushed = bool(smallest * np.float32(0.5) == 0)
    return [
        Diagnosis(
            "denormals",
            "ok",
            "numbers below 1e-38 are zeros to the engine; "
            + (
                "to NumPy and PyTorch, too: another library set the processor so"
                if flushed
                else "NumPy and PyTorch keep them, as IEEE 754 requires"
            ),
        )
    ]
