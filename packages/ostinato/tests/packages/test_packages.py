"""Other people's packages, unedited: loops that `accelerate(model, loops=True)` finds in them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy
import pytest
import torch
from package_models import CASES, B, StochasticField, double

import ostinato
from ostinato.loops.running import pace
from ostinato.nn import inspect

pytestmark = pytest.mark.packages

# Of the largest element: sums in another order differ by ε √K in a step, and the states of these
# models carry such a difference on, up to 10⁵ times as large after 40 steps (a reservoir). Those in
# float32 forget it.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def made(case):
    """The model from the same seed: not a copy, which some packages' classes do not allow."""
    torch.manual_seed(0)
    return case.build()


def outcome(model, call, x):
    """The output and the gradients of its mean square, by name."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages', and ours of loops that run in Python
        y = call(model, x)
    inputs = {n: p for n, p in model.named_parameters() if p.requires_grad} | {"the input": x}
    found = torch.autograd.grad(y.square().mean(), [*inputs.values()], allow_unused=True)
    return {"the output": y, **dict(zip(inputs, found, strict=True))}


def loops_of(case, model):
    """The reports of the case's loop that has run."""
    file, function = case.loop
    return [
        r
        for r in inspect(model)
        if getattr(r, "native", None) is not None
        and (hasattr(r, "file") and r.file.endswith(file) and r.name.endswith(function))
    ]


@pytest.mark.parametrize("name", CASES)
def test_equals_the_package_alone(name, monkeypatch):
    case = CASES[name]
    pytest.importorskip(case.package)
    monkeypatch.setattr(pace, "MEASURES", False)  # no test depends on the machine's speed
    (plain, call, x), (fast, its_call, _) = made(case), made(case)
    ostinato.accelerate(fast, loops=True)
    for _ in range(2):  # recorded, and played again
        expected, got = outcome(plain, call, x), outcome(fast, its_call, x)
        assert [n for n, g in got.items() if g is None] == [
            n for n, g in expected.items() if g is None
        ]
        for n, value in expected.items():
            if value is not None:
                error = (got[n] - value).abs().max() / value.abs().max().clamp(min=1e-30)
                assert error <= TOLERANCE[value.dtype], f"{n} differs by {error:.1e} of its maximum"
    found = loops_of(case, fast)
    assert found, "the loop was not found, or did not run"
    if case.reason:
        assert all(not r.native and case.reason in r.reason for r in found), found
    else:
        assert any(r.native for r in found), found


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_recurrent_models_of_neuralforecast(name):
    models = pytest.importorskip("neuralforecast.models")
    others, found = dict.fromkeys(("futr_exog", "hist_exog", "stat_exog")), []

    def call(model, x):
        return model({"insample_y": x, "insample_mask": torch.ones_like(x), **others})

    for fast in (False, True):
        torch.manual_seed(0)
        model = getattr(models, name)(h=6, input_size=24, max_steps=1).double()
        if fast:
            ostinato.accelerate(model, loops=True)
        found.append(outcome(model, call, double(B, 24, 1)))
    for n, value in found[0].items():
        if value is not None:
            torch.testing.assert_close(found[1][n], value, rtol=1e-10, atol=1e-12)
    assert any("accelerated" in str(r) for r in inspect(model))


@pytest.mark.parametrize("name", ["LSTMModule", "GRUModule"])
def test_modules_of_torchrl(name):
    """Whole trajectories with resets, as the losses of torchrl play them."""
    modules = pytest.importorskip("torchrl.modules")
    from tensordict import TensorDict

    states, found = ["h", "c"][: 2 if name == "LSTMModule" else 1], []
    outs = ["y", *[("next", s) for s in states]]
    starts = torch.rand(B, 24, 1) < 0.1

    def call(model, x):
        given = {s: x.new_zeros(B, 24, 1, 12) for s in states}
        with modules.set_recurrent_mode(True):
            td = model(TensorDict({"x": x, "is_init": starts, **given}, batch_size=[B, 24]))
        return torch.cat([td[key].flatten() for key in outs])

    for fast in (False, True):
        torch.manual_seed(0)
        model = getattr(modules, name)(
            input_size=6, hidden_size=12, in_keys=["x", *states], out_keys=outs
        ).double()
        if fast:
            ostinato.accelerate(model, loops=True)
        found.append(outcome(model, call, double(B, 24, 6)))
    for n, value in found[0].items():
        torch.testing.assert_close(found[1][n], value, rtol=1e-10, atol=1e-12)
    assert any("accelerated" in str(r) for r in inspect(model))


SDES = [  # noise, kind, method, whether a step is 1/100 or no part of the times between outputs
    ("diagonal", "ito", "euler", True),
    ("general", "ito", "euler", False),
    ("diagonal", "ito", "milstein", True),
    ("additive", "ito", "srk", False),
    ("diagonal", "ito", "srk", True),
    ("diagonal", "stratonovich", "midpoint", True),
    ("general", "stratonovich", "log_ode", True),
    ("diagonal", "stratonovich", "reversible_heun", False),
]


@pytest.mark.parametrize(("noise", "kind", "method", "regular"), SDES)
def test_torchsde_by_the_example(noise, kind, method, regular, monkeypatch):
    """The same seed gives the package's numbers."""
    torchsde = pytest.importorskip("torchsde")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[4] / "examples"))
    import torchsde_fixed_step as adapter

    monkeypatch.setattr(pace, "MEASURES", False)
    torch.manual_seed(0)
    sde, y0 = StochasticField(noise, kind).double(), double(B, 3).requires_grad_()
    ts, dt = (torch.linspace(0, 1, 41), 0.025) if regular else (torch.linspace(0, 1, 8), 0.027)
    found = []
    for how in (torchsde.sdeint, adapter.sdeint, adapter.sdeint):
        numpy.random.seed(3)
        torch.manual_seed(3)
        ys = how(sde, y0, ts.double(), method=method, dt=dt)
        weights = [p for p in sde.parameters() if p.requires_grad]
        grads = torch.autograd.grad(ys.square().sum(), [y0, *weights], allow_unused=True)
        found.append([ys, *[g for g in grads if g is not None]])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-10, atol=1e-12)
    (site,) = adapter._steps.__ostinato_loops__
    assert site.native, site.reason


def test_fine_tuning_by_the_trainer_of_transformers(tmp_path):
    """The example: the same losses, and the scan of the layers is native."""
    pytest.importorskip("transformers")
    example = Path(__file__).parents[4] / "examples" / "mamba_trainer.py"
    few = ["--steps", "2", "--rows", "2", "--length", "40", "--output", str(tmp_path)]
    plain, fast = (
        subprocess.run(
            [sys.executable, str(example), *few, *more], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for more in (["--plain"], [])
    )
    losses = [[float(n) for n in of[-1].split()] for of in (plain, fast)]
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)  # the Trainer rounds to four digits
    assert any("mamba" in line and ": native" in line for line in fast), fast


GENERATING = {
    "Mamba": {"state_size": 8},
    "Rwkv": {"attention_hidden_size": 32, "context_length": 64},
    "RecurrentGemma": {
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "lru_width": 32,
        "attention_window_size": 32,
        "num_hidden_layers": 3,
    },
}


@pytest.mark.parametrize("name", GENERATING)
def test_generation_by_transformers(name, monkeypatch):
    """The prompt's loop may be native; the tokens after it come one by one, from a cache."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(pace, "MEASURES", False)
    common = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{name}Config")(**{**common, **GENERATING[name]})
    make = getattr(transformers, f"{name}ForCausalLM")
    torch.manual_seed(0)
    plain, fast = make(config).eval(), make(config).eval()
    fast.load_state_dict(plain.state_dict())
    ostinato.accelerate(fast, loops=True)
    prompt = torch.randint(1, 64, (2, 40))
    for _ in range(3):  # recorded, and played again
        found = [m.generate(prompt, max_new_tokens=24, do_sample=False) for m in (plain, fast)]
        assert torch.equal(found[1], found[0])
    assert any(getattr(report, "native", False) for report in inspect(fast))


def test_a_wrong_gradient_is_seen():
    """The comparison above is one that fails: of outputs alone it would not be."""

    class Wrong(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
            self.factor = factor

        def forward(self, x):
            hidden = self.w * x
            return hidden.detach() + self.factor * (hidden - hidden.detach())

    x = torch.ones(3, dtype=torch.float64)
    right, wrong = (outcome(Wrong(f), lambda m, v: m(v), x) for f in (1.0, 1.001))
    assert torch.equal(right["the output"], wrong["the output"])
    assert abs(right["w"] - wrong["w"]) > TOLERANCE[torch.float64] * right["w"].abs()
