from __future__ import annotations

import json
import types

import pytest

from ostinato import internal
from ostinato_learn import environment


@pytest.fixture
def native(monkeypatch):
    """A stand-in for the compiled module, which need not be built here."""
    module = types.ModuleType("ostinato.engine.native")
    module.best_isa = lambda: "avx2"
    module.available_isas = lambda: ["avx2", "base"]
    module.threads_from_environment = lambda: None
    monkeypatch.setattr(internal, "native", module, raising=False)
    monkeypatch.delenv("OSTINATO_ISA", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return module


def findings(outcome):
    return {f["name"]: f for f in json.loads(outcome.out)["findings"]}


def test_a_healthy_machine(ostinato, native):
    outcome = ostinato("doctor", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["healthy"]
    assert findings(outcome)["native engine"]["value"] == "avx2 (of avx2, base)"
    assert "torch" in ostinato("doctor").out


def test_no_vector_kernel_costs_time(ostinato, native):
    native.best_isa = lambda: "base"
    outcome = ostinato("doctor")
    assert outcome.code == 0
    assert "OSTINATO_ISA=base keeps avx2 from running" in outcome.out
    native.available_isas = lambda: ["base"]
    assert "no vector kernel" in ostinato("doctor").out


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("best_isa", "OSTINATO_ISA=mmx: this machine has avx2, base"),
        ("threads_from_environment", "OSTINATO_NUM_THREADS=abc: wanted a whole number, 1 or more"),
    ],
)
def test_a_variable_that_cannot_be_is_broken(ostinato, native, function, problem):
    def refuse():
        raise ValueError(problem)

    setattr(native, function, refuse)
    outcome = ostinato("doctor")
    assert outcome.code == 1
    assert problem in outcome.out
    assert f"unset {problem.split('=')[0]}" in outcome.out


def test_a_missing_engine_is_broken_and_says_what_to_do(ostinato, monkeypatch):
    def missing():
        raise RuntimeError("the native module is missing")

    monkeypatch.setattr(internal.native, "best_isa", missing)
    outcome = ostinato("doctor")
    assert outcome.code == 1
    assert "broken  native engine" in outcome.out
    assert "pip install" in outcome.out


def test_more_threads_than_cores_cost_time(ostinato, native, monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 1)
    import torch

    torch.set_num_threads(3)
    assert findings(ostinato("doctor", "--json"))["threads"]["state"] == "slow"


def test_a_busy_machine_costs_time(ostinato, native, monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (0.4, 9.0, 9.0))
    assert findings(ostinato("doctor", "--json"))["load"]["state"] == "ok"
    monkeypatch.setattr("os.getloadavg", lambda: (3.5, 0.0, 0.0))
    busy = findings(ostinato("doctor", "--json"))["load"]
    assert busy["state"] == "slow"
    assert "3.5 on 4 cores" in busy["value"]
    assert "torch.set_num_threads(1) and set OSTINATO_NUM_THREADS=4" in busy["advice"]


def test_a_quota_that_gives_no_whole_cores_costs_time(ostinato, native, monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 2)
    monkeypatch.setattr(environment, "cpu_quota", lambda: 1.5)
    found = findings(ostinato("doctor", "--json"))["CPU quota"]
    assert found["state"] == "slow"
    assert found["advice"].endswith("--threads 1")
    monkeypatch.setattr(environment, "cpu_quota", lambda: 2.0)
    assert "CPU quota" not in findings(ostinato("doctor", "--json"))


def test_a_missing_package_is_broken(ostinato, native, monkeypatch):
    known = environment.packages()
    monkeypatch.setattr(environment, "packages", lambda: known | {"numpy": None})
    outcome = ostinato("doctor")
    assert outcome.code == 1
    assert "pip install 'ostinato-learn'" in outcome.out


def test_an_installation_for_the_runtime_alone_is_well(ostinato, native, monkeypatch):
    known = environment.packages()
    monkeypatch.setattr(environment, "packages", lambda: known | {"torch": None, "tqdm": None})
    outcome = ostinato("doctor")
    assert outcome.code == 0
    assert "pip install 'ostinato-learn[torch]'" in outcome.out
    assert findings(ostinato("doctor", "--json"))["training"]["state"] == "absent"
