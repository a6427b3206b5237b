"""Models of other people's packages with loops over time, as their READMEs use them.

Each case is a function that returns a module, how to call it, and its input: in float64, but for
packages that compute in float32 whatever they are given. A case that uses one function of a package
wraps it in a module of a few lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

T, B = 40, 8
os.environ["KERAS_BACKEND"] = "torch"  # read by the first import of Keras


@dataclass(frozen=True)
class Case:
    """A package's model.

    Attributes:
        package: the name that it is imported by.
        loop: the end of the file's path and the function of its loop over time.
        build: () → (module, call(module, input) → Tensor, input).
        reason: why the loop runs in Python, a part of the report's text; "" where it is native.
    """

    package: str
    loop: tuple[str, str]
    build: Callable[[], tuple[nn.Module, Callable[..., Tensor], Tensor]]
    reason: str = ""


CASES: dict[str, Case] = {}


def case(package: str, file: str, function: str, reason: str = "") -> Callable[..., Any]:
    def register(build: Any) -> Any:
        CASES[build.__name__] = Case(package, (file, function), build, reason)
        return build

    return register


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def joined(outputs: Any) -> Tensor:
    """Every tensor of a structure in one, so that one gradient reaches them all."""
    if isinstance(outputs, Tensor):
        return outputs.flatten()
    items = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.cat([joined(o) for o in items if o is not None])


# ---------------------------------------------------------------------------- linear-chain CRFs


@case("torchcrf", "torchcrf/__init__.py", "CRF._compute_normalizer")
def crf_normalizer():
    from torchcrf import CRF

    mask = torch.arange(T) < torch.randint(T // 2, T + 1, (B, 1))
    tags = torch.randint(5, (B, T))
    model = CRF(5, batch_first=True).double()
    return model, lambda m, x: m(x, tags, mask=mask), double(B, T, 5)


@case("torchcrf", "torchcrf/__init__.py", "CRF._compute_score")
def crf_score():
    return crf_normalizer()


@case("torchcrf", "torchcrf/__init__.py", "CRF._viterbi_decode")
def crf_viterbi():
    model, _, x = crf_normalizer()
    mask = torch.ones(B, T, dtype=torch.bool)

    def call(m, x):  # the tags are whole numbers: the gradient is that of x
        return x * 0 + torch.tensor(m.decode(x, mask)).unsqueeze(-1)

    return model, call, x


@case("TorchCRF", "TorchCRF/__init__.py", "CRF._compute_denominator_log_likelihood")
def torchcrf_denominator():
    from TorchCRF import CRF

    mask = torch.ones(B, T, dtype=torch.bool)
    tags = torch.randint(5, (B, T))
    model = CRF(5, use_gpu=False).double()
    return model, lambda m, x: m(x, tags, mask), double(B, T, 5)


# ------------------------------------------------------------------------- liquid and state space


@case("ncps", "ncps/torch/cfc.py", "CfC.forward")
def ncps_cfc():
    from ncps.torch import CfC

    return CfC(6, 12, batch_first=True).double(), lambda m, x: joined(m(x)), double(B, T, 6)


@case("ncps", "ncps/torch/cfc.py", "CfC.forward")
def ncps_cfc_wired():
    from ncps.torch import CfC
    from ncps.wirings import AutoNCP

    model = CfC(6, AutoNCP(20, 4), batch_first=True).double()
    return model, lambda m, x: joined(m(x)), double(B, T, 6)


@case("ncps", "ncps/torch/ltc.py", "LTC.forward")
def ncps_ltc():
    from ncps.torch import LTC

    return LTC(6, 12, batch_first=True).double(), lambda m, x: joined(m(x)), double(B, T, 6)


@case("mambapy", "mambapy/mamba.py", "MambaBlock.selective_scan_seq")
def mambapy_mamba():
    from mambapy.mamba import Mamba, MambaConfig

    model = Mamba(MambaConfig(d_model=8, n_layers=1, pscan=False)).double()
    return model, lambda m, x: m(x), double(B, T, 8)


@case("xlstm", "slstm/src/vanilla/__init__.py", "slstm_forward")
def xlstm_slstm():
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    config = sLSTMLayerConfig(
        embedding_dim=16, num_heads=2, backend="vanilla", conv1d_kernel_size=0
    )
    return sLSTMLayer(config).double(), lambda m, x: m(x), double(B, T, 16)


# ------------------------------------------------------------------------------- spiking neurons


@case("snntorch", "package_models.py", "Net.forward")
def snntorch_leaky():
    import snntorch as snn

    class Net(nn.Module):  # the first network of its tutorials
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 20), nn.Linear(20, 4)
            self.lif1, self.lif2 = snn.Leaky(beta=0.9), snn.Leaky(beta=0.8)

        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            spk2_rec, mem2_rec = [], []
            for step in range(x.size(0)):
                spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                spk2_rec.append(spk2)
                mem2_rec.append(mem2)
            return torch.stack(spk2_rec), torch.stack(mem2_rec)

    return Net(), lambda m, x: joined(m(x)), 3 * torch.randn(T, B, 6)


@case("snntorch", "package_models.py", "Net.forward")
def snntorch_synaptic():
    import snntorch as snn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 20), nn.Linear(20, 4)
            self.lif1 = snn.Synaptic(alpha=0.9, beta=0.8)
            self.lif2 = snn.RLeaky(beta=0.8, linear_features=4)

        def forward(self, x):
            syn1, mem1 = self.lif1.reset_mem()
            spk2, mem2 = self.lif2.init_rleaky()
            rec = []
            for step in range(x.size(0)):
                spk1, syn1, mem1 = self.lif1(self.fc1(x[step]), syn1, mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), spk2, mem2)
                rec.append(mem2)
            return torch.stack(rec)

    return Net(), lambda m, x: joined(m(x)), 3 * torch.randn(T, B, 6)


@case("norse", "norse/torch/module/snn.py", "SNN.forward")
def norse_lif():
    import norse.torch as norse

    model = norse.SequentialState(norse.LIF()).double()
    return model, lambda m, x: m(x)[0], 3 * double(T, B, 6).abs()


@case("norse", "norse/torch/module/snn.py", "SNNRecurrent.forward")
def norse_recurrent():
    import norse.torch as norse

    model = norse.LSNNRecurrent(6, 12).double()
    return model, lambda m, x: m(x)[0], 3 * double(T, B, 6).abs()


@case("spikingjelly", "package_models.py", "Net.forward")
def spikingjelly_single_step():
    from spikingjelly.activation_based import functional, layer, neuron

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(layer.Linear(6, 12), neuron.LIFNode(tau=2.0))

        def forward(self, x):
            rate = 0.0
            for t in range(x.shape[0]):
                rate += self.layers(x[t])
            return rate / x.shape[0]

    def call(m, x):
        functional.reset_net(m)
        return m(x)

    return Net().double(), call, 3 * double(T, B, 6).abs()


@case("spikingjelly", "_ops/lif/reference.py", "multi_step")
def spikingjelly_multi_step():  # in float32 it calls an operator of its own instead of a loop
    from spikingjelly.activation_based import functional, layer, neuron

    model = nn.Sequential(layer.Linear(6, 12), neuron.LIFNode(tau=2.0)).double()
    functional.set_step_mode(model, "m")

    def call(m, x):
        functional.reset_net(m)
        return m(x)

    return model, call, 3 * double(T, B, 6).abs()


@case("sinabs", "sinabs/layers/functional/lif.py", "lif_forward")
def sinabs_lif():
    import sinabs.layers as sl

    model = nn.Sequential(nn.Linear(6, 12), sl.LIF(tau_mem=20.0))

    def call(m, x):
        m[1].reset_states()
        return m(x)

    return model, call, 3 * torch.randn(B, T, 6)  # its threshold is in float32


# -------------------------------------------------------------------- reservoirs and hydrology


@case("resdag", "layers/reservoirs/base_reservoir.py", "forward_stateless")
def resdag_esn():
    from resdag.layers import ESNLayer

    model = ESNLayer(30, feedback_size=6, spectral_radius=0.9).double()

    def call(m, x):
        m.reset_state()
        return m(x)

    return model, call, double(B, T, 6)


@case("hydrodl2", "hydrodl2/models/hbv/hbv.py", "Hbv._PBM")
def hydrodl2_hbv():
    from hydrodl2.models.hbv.hbv import Hbv

    model = Hbv({"dynamic_params": {"Hbv": ["parBETA"]}, "nmul": 4})
    rain = torch.rand(T, B, 3) * torch.tensor([20.0, 20.0, 5.0])  # it computes in float32

    def call(m, x):
        return joined(list(m({"x_phy": rain}, x).values())[:5])

    return model, call, torch.randn(T, B, 12 * 4 + 2)


def neuralhydrology(name, **more):
    """A model from the settings of its tutorials."""
    from neuralhydrology.modelzoo import get_model
    from neuralhydrology.utils.config import Config

    settings = {
        "model": name,
        "hidden_size": 12,
        "dynamic_inputs": ["a", "b", "c"],
        "target_variables": ["q"],
        "output_activation": "linear",
        "head": "regression",
        "output_dropout": 0.0,
        "initial_forget_bias": 3,
        "seq_length": T,
        "predict_last_n": 1,
        "static_attributes": ["s", "u"],
        **more,
    }
    return get_model(Config(settings)).double()


def of_basins(x):
    return {
        "x_d": {k: x[..., i : i + 1] for i, k in enumerate(["a", "b", "c"])},
        "x_s": x[:, 0, 3:],
    }


@case("neuralhydrology", "neuralhydrology/modelzoo/ealstm.py", "EALSTM.forward")
def neuralhydrology_ealstm():
    return neuralhydrology("ealstm"), lambda m, x: joined(m(of_basins(x))), double(B, T, 5)


@case("neuralhydrology", "neuralhydrology/modelzoo/customlstm.py", "CustomLSTM.forward")
def neuralhydrology_customlstm():
    return neuralhydrology("customlstm"), lambda m, x: joined(m(of_basins(x))), double(B, T, 5)


@case("neuralhydrology", "neuralhydrology/modelzoo/mclstm.py", "_MCLSTMCell.forward")
def neuralhydrology_mclstm():
    model = neuralhydrology("mclstm", mass_inputs=["a"], dynamic_inputs=["b", "c"])
    return model, lambda m, x: joined(m(of_basins(x))), double(B, T, 5)


# ----------------------------------------------------------------- Kalman filters, hidden Markov


@case("torch_kf", "torch_kf/kalman_filter.py", "KalmanFilter.filter")
def torch_kf_filter():
    from torch_kf import GaussianState
    from torch_kf.ckf import constant_kalman_filter

    class Filter(nn.Module):
        def __init__(self):
            super().__init__()
            self.kf = constant_kalman_filter(0.5, 1.0, dim=2, order=1).to(torch.float64)

        def forward(self, x):
            state = GaussianState(
                torch.zeros(B, 4, 1, dtype=x.dtype), torch.eye(4, dtype=x.dtype).expand(B, 4, 4)
            )
            found = self.kf.filter(state, x, return_all=True)
            return found.mean, found.covariance

    return Filter(), lambda m, x: joined(m(x)), double(T, B, 2, 1)


@case("pyro", "pyro/distributions/hmm.py", "_linear_integrate")
def pyro_linear_hmm():
    import pyro.distributions as dist

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.scale = nn.Parameter(torch.eye(2) * 0.9), nn.Parameter(torch.ones(2))
            self.seen = nn.Parameter(torch.randn(2, 1))

        def forward(self, x):
            noise = dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(1)
            return dist.LinearHMM(
                dist.Normal(x, self.scale).to_event(1),
                self.matrix,
                noise,
                self.seen,
                dist.Normal(torch.zeros(1, dtype=x.dtype), 1.0).to_event(1),
                duration=T,
            ).rsample((B,))

    return Model().double(), lambda m, x: m(x), double(2)


# ------------------------------------------------------------------- reinforcement learning


@case("sb3_contrib", "common/recurrent/policies.py", "_process_sequence")
def sb3_recurrent_ppo():
    import gymnasium
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    space = gymnasium.spaces.Box(-1.0, 1.0, (6,))
    policy = RecurrentActorCriticPolicy(
        space, gymnasium.spaces.Discrete(3), lambda _: 1e-3, lstm_hidden_size=12
    )
    starts = (torch.rand(B * T) < 0.1).float()
    actions = torch.randint(3, (B * T,))

    def call(m, x):
        zeros = torch.zeros(1, B, 12, dtype=x.dtype)
        states = RNNStates((zeros, zeros), (zeros, zeros))
        return joined(m.evaluate_actions(x, actions, states, starts))

    return policy, call, torch.randn(B * T, 6)


@case("torchrl", "tensordict_module/rnn.py", "_lstm")
def torchrl_lstm():
    from torchrl.modules.tensordict_module.rnn import LSTM

    return LSTM(6, 12, batch_first=True).double(), lambda m, x: joined(m(x)[0]), double(B, T, 6)


@case("torchrl", "tensordict_module/rnn.py", "_gru")
def torchrl_gru():
    from torchrl.modules.tensordict_module.rnn import GRU

    return GRU(6, 12, batch_first=True).double(), lambda m, x: joined(m(x)[0]), double(B, T, 6)


@case("tensordict", "package_models.py", "Rollout.forward")
def tensordict_rollout():
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule, TensorDictSequential

    class Rollout(nn.Module):
        def __init__(self):
            super().__init__()
            cell = TensorDictModule(nn.GRUCell(6, 12), in_keys=["seen", "h"], out_keys=["h"])
            head = TensorDictModule(nn.Linear(12, 3), in_keys=["h"], out_keys=["action"])
            self.policy = TensorDictSequential(cell, head)

        def forward(self, x):
            td = TensorDict({"h": x.new_zeros(len(x), 12)}, batch_size=[len(x)])
            actions = []
            for t in range(x.shape[1]):
                td["seen"] = x[:, t]
                td = self.policy(td)
                actions.append(td["action"])
            return torch.stack(actions, 1), td["h"]

    return Rollout().double(), lambda m, x: joined(m(x)), double(B, T, 6)


# ------------------------------------------------------------------------------ layers of Keras


def keras_layer(name):
    import keras

    keras.utils.clear_session()  # names of parameters count the layers of a session
    keras.utils.set_random_seed(0)
    layer = getattr(keras.layers, name)(12, return_sequences=True, dtype="float64")
    layer.build((B, T, 6))
    return layer, lambda m, x: m(x), double(B, T, 6)


@case("keras", "backend/torch/rnn.py", "_fallback_lstm")
def keras_lstm():
    return keras_layer("LSTM")


@case("keras", "backend/torch/rnn.py", "_fallback_gru")
def keras_gru():
    return keras_layer("GRU")


# --------------------------------------------------------------------- differential equations


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, t, y):
        return self.net(y)


class StochasticField(nn.Module):
    """Drift and diffusion of torchsde, of 3 states and 3 noises."""

    def __init__(self, noise, kind):
        super().__init__()
        self.noise_type, self.sde_type = noise, kind
        self.drift = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))
        self.diffusion = nn.Linear(3, 3 if noise == "diagonal" else 9)

    def f(self, t, y):
        return self.drift(y) * torch.cos(t)

    def g(self, t, y):
        s = torch.sigmoid(self.diffusion(y * 0 if self.noise_type == "additive" else y))
        return s if self.noise_type == "diagonal" else s.view(-1, 3, 3)


def torchdiffeq(method, times, **options):
    from torchdiffeq import odeint

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.field = Field()

        def forward(self, y):
            return odeint(self.field, y, times, method=method, options=options)

    return Model().double(), lambda m, x: m(x)


@case("torchdiffeq", "torchdiffeq/_impl/solvers.py", "integrate")
def torchdiffeq_rk4():
    return *torchdiffeq("rk4", torch.linspace(0, 1, T).double()), double(B, 4)


@case("torchdiffeq", "torchdiffeq/_impl/solvers.py", "integrate")
def torchdiffeq_irregular_times():
    times = torch.cat([torch.zeros(1), torch.rand(T).sort().values, torch.ones(1)])
    return *torchdiffeq("rk4", times.double()), double(B, 4)


@case("torchdiffeq", "torchdiffeq/_impl/solvers.py", "integrate")
def torchdiffeq_euler_of_one_row():
    return *torchdiffeq("euler", torch.linspace(0, 1, T).double()), double(4)


@case("torchdiffeq", "torchdiffeq/_impl/solvers.py", "integrate")
def torchdiffeq_midpoint_to_the_end():
    ends = torch.tensor([0.0, 1.0]).double()
    return *torchdiffeq("midpoint", ends, step_size=1 / T), double(B, 4)
