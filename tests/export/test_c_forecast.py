"""Forecasters as C: a series step by step, and its forecasts beside those of the runtime."""

from __future__ import annotations

import ctypes
import re
import shutil
from itertools import product

import numpy as np
import onnx_models as models
import pytest
from c_examples import STRICT, checked_run, needs_gcc, run
from test_onnx_forecast import FORECASTERS

from ostinato.data.panel import Panel
from ostinato.data.prepare import Feature, Preparation
from ostinato.data.roles import Roles
from ostinato.engine import native
from ostinato.export.c import export_c
from ostinato.export.c_forecast import answers_and_bounds, forecast_source
from zoo.suites import one_in

pytestmark = [
    needs_gcc,
    pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine"),
]
ONE_WAY = {name: o for name, o in FORECASTERS.items() if "bidirectional" not in o}
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast")


@pytest.fixture(autouse=True)
def unmeasured(request, monkeypatch):
    if "sizes" not in request.fixturenames:
        monkeypatch.setattr("ostinato.export.c.measured", lambda *_: ([], []))


class Series:
    """One state of a compiled forecaster, with a guard behind it and behind its answers."""

    def __init__(self, report, model):
        file = report.files[0]
        made = file.with_suffix(".so")
        checked_run(
            "gcc", *STRICT, *FLAGS, "-shared", "-fPIC", file.name, "-o", made.name, "-lm",
            cwd=file.parent,
        )  # fmt: skip
        library = ctypes.CDLL(str(made))
        self.step_of, self.init_of = library.net_step, library.net_init
        self.has_ahead = len(model.windows.future) > 0
        self.n_outputs = model.windows.horizon * len(model.labels)
        self.memory = np.full(report.state // 4 + 1, 12345, np.float32)
        self.init()

    def init(self):
        self.init_of(_address(self.memory))

    def step(self, x, ahead=None, ask=True):
        """What the step returns, and the forecast; None if it was not asked for or is none."""
        out = np.full(self.n_outputs + 1, 54321, np.float32)
        x = np.ascontiguousarray(x, np.float32)
        given = [] if ahead is None else [np.ascontiguousarray(ahead, np.float32)]
        pointers = [self.memory, x, *given]
        if self.has_ahead and ahead is None:
            pointers.append(None)
        pointers.append(out if ask else None)
        failed = self.step_of(*map(_address, pointers))
        assert self.memory[-1] == 12345 and out[-1] == 54321
        if failed or not ask:
            assert (out == 54321).all()
        return failed, out[:-1] if ask and not failed else None


def _address(array):
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


def series_of(model, n_steps, seed=0):
    """A series with values missing, and its inputs: `[T, 1 + P]`, `[T + h, K]` and `[S]`."""
    w, random = model.windows, np.random.default_rng(seed)
    x = random.normal(3, 2, (n_steps, model.n_features))
    x[1:, 0][random.random(n_steps - 1) < 0.2] = np.nan
    future = random.normal(size=(n_steps + w.horizon, len(w.future)))
    return tuple(v.astype(np.float32) for v in (x, future, random.normal(size=len(w.static))))


def panel_of(model, x, future, static, at):
    """The series up to each of some steps."""
    w = model.windows
    x, future, static = (v.astype(np.float64) for v in (x, future, static))
    return Panel.of(
        [x[:n, 0] for n in at],
        past=[x[:n, 1:] for n in at] if x.shape[1] > 1 else None,
        future=[future[: n + w.horizon] for n in at] if future.shape[1] else None,
        static=np.repeat(static[None], len(at), axis=0) if len(static) else None,
    )


def played(series, model, x, future, static):
    """The forecast after each step, `[T, h · Q]`."""
    h = model.windows.horizon
    found = []
    for t, row in enumerate(x):
        ahead = future[t + 1 : t + 1 + h] if series.has_ahead else None
        failed, out = series.step(np.concatenate([row, future[t], static]), ahead)
        assert failed == 0
        found.append(out)
    return np.stack(found)


@pytest.mark.parametrize(
    ("name", "int8"), one_in(5, product(ONE_WAY, [False, True]), of_several=True)
)
def test_equal_to_the_runtime(name, int8, tmp_path):
    """After each step: with a window that begins before the series, and one that has moved on."""
    model = models.forecaster(**ONE_WAY[name])
    report = export_c(model, tmp_path / "net.c", int8=int8)
    n_steps = 2 * model.windows.context + 3
    given = series_of(model, n_steps)
    panel = panel_of(model, *given, at=range(1, n_steps + 1))
    s = forecast_source(
        "net", "", model.graph, model.tensors, model.windows, model.labels.tolist(), (), int8
    )
    expected, allowed = answers_and_bounds(s, model.graph, model.tensors, panel)
    if not int8:
        meant = model.predict_quantiles(panel).reshape(n_steps, -1)
        np.testing.assert_allclose(expected, meant, rtol=1e-12, atol=1e-12)
    assert allowed.max() < 1e-3  # so that the comparison means something
    series = Series(report, model)
    ours = played(series, model, *given)
    assert (np.abs(ours - expected) <= allowed).all()
    series.init()
    np.testing.assert_array_equal(played(series, model, *given), ours)


@pytest.mark.slow
def test_strict_compilers_and_sanitizers_find_nothing(tmp_path):
    export_c(models.forecaster(P=1, K=3, S=2, num_layers=2, cell="lstm"), tmp_path / "net.c")
    sanitizers = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    for compiler in filter(shutil.which, ("gcc", "clang")):
        for flags in (["-O0"], ["-O3", "-march=native"], sanitizers):
            command = [compiler, *STRICT, *flags, "net.c", "net_test.c", "-o", "test", "-lm"]
            checked_run(*command, cwd=tmp_path)
            assert "4 forecasts are right" in checked_run("./test", cwd=tmp_path)


def test_the_self_test_finds_a_wrong_number(tmp_path):
    """In a weight, in a lag, and in the scale of an input."""
    export_c(models.forecaster(P=1, K=1), tmp_path / "net.c")
    text = (tmp_path / "net.c").read_text()
    for name, change in (("weights0", 0.01), ("lags", 1), ("deviation", 0.1), ("each_weights0", 1)):
        table = rf"(net_{name}\[\d+\] = \{{\n    )(-?[\d.e-]+)"
        (found,) = re.findall(table, text)
        wrong = f"{float(found[1]) + change}" if "." in found[1] else f"{int(found[1]) + change}"
        (tmp_path / "net.c").write_text(re.sub(table, rf"\g<1>{wrong}", text, count=1))
        checked_run("gcc", "net.c", "net_test.c", "-o", "test", "-lm", cwd=tmp_path)
        assert run("./test", cwd=tmp_path).returncode == 1, name


def test_what_is_refused_changes_nothing(tmp_path):
    model = models.forecaster(P=1, K=2, S=1)
    series = Series(export_c(model, tmp_path / "net.c"), model)
    good, ahead = np.zeros(5), np.zeros((3, 2))
    assert series.step(good, ahead)[0] == 0
    before = series.memory.copy()
    for i in range(5):
        for wrong in (np.inf, -np.inf, np.nan):
            x = good.copy()
            x[i] = wrong
            if i > 0 or np.isinf(wrong):
                assert series.step(x, ahead) == (i + 1, None)
    for j in range(6):
        wrong = ahead.copy()
        wrong.flat[j] = np.nan
        assert series.step(good, wrong) == (5 + j + 1, None)
    np.testing.assert_array_equal(series.memory, before)
    assert series.step(good, None, ask=False) == (0, None)  # ahead is not read


def test_a_window_without_a_value(tmp_path):
    """The step is read; there is nothing to scale by, and no forecast, until a value comes."""
    model = models.forecaster(context=4)
    series = Series(export_c(model, tmp_path / "net.c"), model)
    answers = [series.step([v])[0] for v in [np.nan, 1, np.nan, np.nan, np.nan, np.nan, 2]]
    assert answers == [-1, 0, 0, 0, 0, -1, 0]


@pytest.mark.parametrize("scaling", ["std", "mean_abs"])
@pytest.mark.parametrize("values", one_in(3, [[0.1] * 20, [0] * 20, [0.1] + [np.nan] * 9]), ids=str)
def test_scales_of_series_that_do_not_vary(values, scaling, tmp_path):
    model = models.forecaster(scaling=scaling)
    series = Series(export_c(model, tmp_path / "net.c"), model)
    for value in values:
        failed, out = series.step([value])
    assert failed == 0
    meant = model.predict_quantiles([np.array(values, np.float32).astype(float)])[0]
    scale = 0.1 if values[0] else 1
    np.testing.assert_allclose(out.reshape(3, 9), meant, rtol=0, atol=2e-5 * scale)


def test_the_report_and_the_header(tmp_path, sizes):
    features = (Feature("price"), Feature("day", ("fri", "mon")))
    model = models.forecaster(P=1, K=2, S=1)
    roles = Roles(task="forecast", shape="long", known=("day",))
    model.preparation = Preparation(features, (Feature("size"),), "forward", roles)
    report = export_c(model, tmp_path / "net.c", int8=True)
    assert report.state == 4 * (12 * 4 + 1 + 1)
    assert f"a forecast: {report.products:,} multiplications" in str(report)
    text = (tmp_path / "net.c").read_text()
    tables = re.findall(r"static const (\w+) \w+\[(\d+)\] = ", text)
    sizes_of = {"float": 4, "double": 8, "int8_t": 1, "int32_t": 4}
    assert report.tables == sum(sizes_of[kind] * int(n) for kind, n in tables)
    assert all(s.writable == 0 for s in report.sizes)
    text = (tmp_path / "net.h").read_text()
    for line in (
        "in[0]: the value of the series, NaN if missing",
        "in[1]: price, known as long as the series",
        "in[2]: day=fri, known in advance",
        "in[4]: size, the same at every step",
        "ahead[k * 2 + i]: in[2 + i]",
    ):
        assert line in " ".join(text.split())


@pytest.fixture
def sizes():
    """For tests that need the sizes of the compiled code."""


def test_refusals(tmp_path):
    both = models.forecaster(bidirectional=True)
    with pytest.raises(ValueError, match="gru layer 0 also reads from the end"):
        export_c(both, tmp_path / "net.c")
    with pytest.raises(ValueError, match="the loss of int8 of a forecaster is not measured"):
        export_c(models.forecaster(), tmp_path / "net.c", int8=True, calibrate=[np.zeros(20)])
    assert list(tmp_path.iterdir()) == []
