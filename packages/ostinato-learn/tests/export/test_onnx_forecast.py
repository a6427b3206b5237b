"""Forecasters as ONNX files: windows, scales, lags and inputs, beside the runtime's quantiles."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_examples as ex
import onnx_models as models
import pytest

from ostinato.engine import native
from ostinato_learn.data.sequences.features import Feature
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.tables.roles import Roles
from ostinato_learn.export import parity
from ostinato_learn.export.onnx import export_onnx, exportable
from ostinato_learn.export.onnx.model import sequence_model

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine")

FORECASTERS = {
    "alone": {},
    "mean_abs": {"scaling": "mean_abs", "cell": "lstm"},
    "no season": {"season": 1, "horizon": 1},
    "lags before the window": {"season": 12, "context": 5, "horizon": 7},
    "past inputs": {"P": 2, "cell": "rnn"},
    "known in advance": {"K": 2},
    "static": {"S": 3},
    "all inputs": {"P": 1, "K": 3, "S": 2, "num_layers": 2},
    "two directions": {"P": 1, "bidirectional": True},
    "three quantiles": {"quantiles": (0.1, 0.5, 0.9)},
    "not negative, whole": {"nonnegative": True, "whole": True},
}


@pytest.mark.parametrize("name", FORECASTERS)
def test_equal_to_the_runtime(name, tmp_path):
    options = FORECASTERS[name]
    report = export_onnx(models.forecaster(**options), tmp_path / "m.onnx")
    assert len(report.parity.cases) == 2
    for case in report.parity.cases:
        assert case.error <= case.bound
    wanted = {"series": ["batch", "time", 1 + options.get("P", 0)], "lengths": ["batch"]}
    if "K" in options:
        wanted["future"] = ["batch", "time_ahead", options["K"]]
    if "S" in options:
        wanted["static"] = ["batch", options["S"]]
    assert report.inputs == wanted
    n_levels = len(options.get("quantiles", range(9)))
    assert report.outputs == {"answer": ["batch", options.get("horizon", 3), n_levels]}


@pytest.mark.parametrize("name", FORECASTERS)
def test_equal_to_the_runtime_in_openvino(name):
    """It scales in float32: a value off by ε of itself is off by some ε of its window's scale."""
    model = models.forecaster(**FORECASTERS[name])
    run = ex.openvino(sequence_model(exportable(model)).proto)
    for case in parity.cases(model, run, "sequence"):
        assert case.error <= 2 * case.bound, case


def test_an_own_cell_is_a_scan(tmp_path):
    from test_onnx_export import Leaky

    report = export_onnx(models.forecaster(P=1, cell=Leaky), tmp_path / "m.onnx")
    assert report.operators == {"Scan": 1}


def answers(model, series, lengths, tmp_path):
    export_onnx(model, tmp_path / "m.onnx")
    run = ex.onnx_runtime(onnx.load(tmp_path / "m.onnx"))
    (came,) = run({"series": series, "lengths": np.array(lengths)})
    return came


@pytest.mark.parametrize("scaling", ["std", "mean_abs"])
def test_scales_of_series_that_do_not_vary(scaling, tmp_path):
    """Constant, all zero, a million away from zero, and one value alone. The mean of twelve times
    0.1 is another number, so that the deviation is not 0 but rounding."""
    model = models.forecaster(scaling=scaling)
    series = np.full((4, 20, 1), 0.1)
    series[1] = 0
    series[2, :, 0] = 1e6 + np.sin(np.arange(20))
    series[3, :-1] = np.nan
    came = answers(model, series, [20] * 4, tmp_path)
    meant = model.predict_quantiles(list(series[:, :, 0]))
    scale = np.array([0.1, 1.0, 1.0 if scaling == "std" else 1e6, 0.1])[:, None, None]
    assert (np.abs(came - meant) / scale).max() <= parity.bound(model.graph, 12, 10)


def test_whole_numbers_are_those_of_the_runtime(tmp_path):
    """The seed leaves no value so near a half that rounding in the network decides."""
    model = models.forecaster(nonnegative=True, whole=True)
    series = np.random.default_rng(1).poisson(2.0, (5, 20, 1)).astype(np.float64)
    came = answers(model, series, [20] * 5, tmp_path)
    assert np.unique(came).tolist()[:2] == [0, 1] and came.max() > 2
    np.testing.assert_array_equal(came, model.predict_quantiles(list(series[:, :, 0])))


def test_nothing_beyond_the_end_or_before_the_window_is_read(tmp_path):
    model = models.forecaster()
    series = np.random.default_rng(0).normal(size=(1, 30, 1))
    first = answers(model, series, [20], tmp_path)
    series[:, 20:] = np.inf
    series[:, : 20 - 12] = -np.inf
    np.testing.assert_array_equal(answers(model, series, [20], tmp_path), first)


def test_what_the_file_says(tmp_path):
    export_onnx(models.forecaster(), tmp_path / "m.onnx")
    kept = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert kept["ostinato.answer"] == "quantiles"
    assert kept["ostinato.labels"] == [k / 10 for k in range(1, 10)]
    assert (kept["ostinato.context"], kept["ostinato.horizon"]) == (12, 3)


def test_the_names_of_inputs_are_those_of_the_table(tmp_path):
    model = models.forecaster(P=1, K=2, S=1)
    features = (Feature("day", ("fri", "mon")), Feature("price"))
    roles = Roles(task="forecast", shape="long", known=("day",))
    model.preparation = Preparation(features, (Feature("size"),), "forward", roles)
    export_onnx(model, tmp_path / "m.onnx")
    kept = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    wanted = {"past": ["price"], "future": ["day=fri", "day=mon"], "static": ["size"]}
    assert {name: kept[f"ostinato.{name}"] for name in wanted} == wanted


def test_the_step_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a forecaster scales each window as a whole"):
        export_onnx(models.forecaster(), tmp_path / "m.onnx", "step")
    assert not list(tmp_path.iterdir())
