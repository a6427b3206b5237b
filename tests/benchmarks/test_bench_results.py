"""Results: kept, judged, shown; and the stopwatch of `overhead`."""

import os
from dataclasses import replace

import pytest
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.check import judged
from benchmarks.page import page
from benchmarks.results import Absent, Bound, Results, Row, Spec, Timing, load, save

from benchmarks import machine, overhead, tables

MACHINE = {
    "date": "2024-05-06T07:08:09",
    "cpu": "some CPU",
    "cores": 2,
    "system": "Linux",
    "python": "3.11",
    "packages": {"torch": "2.6", "jax": None},
    "git": None,
    "instruction_set": "avx2",
    "torch_threads": 2,
    "mm_gflops": 200.0,
    "latency_ns": 25.0,
    "peak_gflops": 235.0,
}


def row(name="rnn/notebook", value=1.5, latency=(25.0, 26.0)):
    ours, peer = Timing("ours", 2e-3, 1.9e-3, 2.1e-3, 17), Timing("X", 3e-3, 3e-3, 3e-3, 17, 1.5)
    absent, bounds = (Absent("Y", "not installed"),), (Bound("X over ours", 2.0, value),)
    return Row(name, "B 128", (ours, peer), absent, bounds, 0.4, 200.0, latency)


def results(*rows, benchmark="scan"):
    return Results(benchmark, "python -m benchmarks scan", False, MACHINE, MACHINE, rows)


def test_results_survive_the_file_and_leave_other_benchmarks_in_it(tmp_path):
    path = tmp_path / "r.json"
    save(path, results(row(value=1.0)))
    save(path, results(row(), benchmark="layers"))
    save(path, results(row(value=3.0)))
    assert load(path) == [results(row(value=3.0)), results(row(), benchmark="layers")]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("arguments", [["report"], ["overhead", "--json"]])
def test_a_foreign_file_is_refused_before_anything_is_measured(arguments, tmp_path, capsys):
    path = tmp_path / "r.json"
    path.write_text("[]")
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, str(path)])
    assert stopped.value.code == 2
    assert "r.json is not a result" in capsys.readouterr().err
    assert path.read_text() == "[]"


def test_bounds_in_both_directions():
    low, high = Bound("", 2.0, 1.9), Bound("", 2.0, 2.0)
    assert (low.met, high.met, low.better(high)) == (False, True, high)
    low, high = replace(low, at_least=False), replace(high, at_least=False, value=2.1)
    assert (low.met, high.met, low.better(high)) == (True, False, low)


def test_the_fastest_peer_is_none_of_ours():
    assert row().fastest_peer.name == "X"
    assert replace(row(), timings=row().timings[:1]).fastest_peer is None


def test_rows_taken_in_another_state_are_flagged():
    slow, none = row("slow", latency=(26.0, 170.0)), row("none", latency=(None, None))
    shared = replace(row("shared"), mm_gflops=100.0)
    run = results(row("a"), row("b"), slow, none, shared)
    assert [bool(run.doubt(r)) for r in run.rows] == [False, False, True, False, True]
    lines = tables.summary_lines(run)
    assert any("do not compare slow: the cores talked" in line for line in lines)
    assert any("do not compare shared: something else" in line for line in lines)


def test_check_takes_the_best_of_three():
    def spec(*values):
        rows = iter([row(value=v) for v in values])
        return Spec("r", lambda: next(rows))

    assert judged(spec(2.5)).bounds[0].value == 2.5  # met: not measured again
    assert judged(spec(1.5, 2.5)).bounds[0].met
    worst = judged(spec(1.9, 1.8, 1.7)).bounds[0]
    assert (worst.value, worst.met) == (1.9, False)


def test_terminal_and_page_show_losses_and_who_is_absent(tmp_path):
    text = "\n".join(tables.row_lines(row()))
    assert "1.50 × ours" in text
    assert "X over ours 1.50, wanted ≥ 2: MISSED (needs 267 GFLOP/s)" in text  # 0.4 · 2 / 3 ms
    assert "not timed: not installed" in text
    save(tmp_path / "r.json", results(row()))
    shown = page(tmp_path / "r.json")
    assert "| rnn/notebook | B 128 | 2 ms | X over ours | 1.50 | ≥ 2 | 267 | **missed** |" in shown
    assert "jax not installed" in shown


@pytest.mark.parametrize(
    ("s", "text"), [(1.234, "1.23 s"), (0.0123, "12.3 ms"), (0.9996, "1000 ms"), (5e-7, "0.5 µs")]
)
def test_durations(s, text):
    assert tables.duration(s) == text


def test_latency_is_some_nanoseconds_or_not_measured():
    ns = machine.latency_ns()
    assert ns is None or 1 < ns < 100_000


def test_the_registers_are_timed_over_all_that_they_multiply():
    peak = machine.peak_gflops()
    # Left out by the compiler, or counted in other units: orders of magnitude beyond. At most four
    # 512-bit fused multiply-adds a cycle, of a core at 8 GHz.
    assert peak is None or 1 < peak < 4 * 32 * 8 * len(os.sched_getaffinity(0))


def test_the_stopwatch_counts_each_moment_once(monkeypatch):
    now = [0]

    def work(ns):
        now[0] += ns

    monkeypatch.setattr(overhead.time, "perf_counter_ns", lambda: now[0])
    watch = overhead.Stopwatch()
    inner = watch.watched("inner", lambda: work(20))
    watch.watched("outer", lambda: (work(10), inner(), work(3)))()
    assert watch.spent == {"inner": 20, "outer": 13}


@pytest.mark.parametrize("kind", overhead.WANTED_US)
def test_overhead_sees_every_part(kind):
    found = overhead._overhead_row(kind, calls=2)
    parts = [t for t in found.timings if t.name.startswith("part")]
    assert len(parts) == len(overhead.PARTS) + 1
    assert all(t.median_s > 0 for t in parts)
    assert found.bounds[0].value > 1  # µs


def test_check_exits_1_and_names_what_is_missed(monkeypatch, capsys):
    for name in BENCHMARKS:
        specs = [Spec("r", lambda: row(value=1.5))] if name == "layers" else []
        monkeypatch.setattr(f"benchmarks.{name}.specs", lambda quick, specs=specs: specs)
    monkeypatch.setattr(machine, "report", lambda: MACHINE)
    monkeypatch.setattr(machine, "state", lambda: MACHINE)
    monkeypatch.setattr("benchmarks.__main__._prepare", lambda threads: None)
    assert main(["check"]) == 1
    assert "layers rnn/notebook: X over ours 1.50, wanted ≥ 2: MISSED" in capsys.readouterr().err
    monkeypatch.setattr("benchmarks.layers.specs", lambda quick: [Spec("r", lambda: row(value=2))])
    assert main(["check"]) == 0
    assert "all bounds met" in capsys.readouterr().err


def test_an_unknown_row_is_named_with_those_there_are(monkeypatch):
    monkeypatch.setattr("benchmarks.__main__._prepare", lambda threads: None)
    with pytest.raises(SystemExit, match=r"no such row of overhead; it has overhead/by path"):
        main(["overhead", "--rows", "nope"])


def test_every_benchmark_has_a_title_on_the_page():
    from benchmarks.__main__ import BENCHMARKS
    from benchmarks.page import TITLES

    assert tuple(TITLES) == BENCHMARKS
