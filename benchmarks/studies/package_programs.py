"""Programs that train with other people's packages, on data made here; see programs.py.

Each is a function of `fast`, whether the loops are ostinato's, and of a seed. What it changes for
that is the line under `if fast`. It returns the losses, or the rewards, on the way. An epoch is one
of some 60,000 examples, as many as MNIST has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ostinato

Program = Callable[[bool, int], list[float]]
SHARE = 1  # of the updates, one in so many is made
PROGRAMS: dict[str, tuple[str, Program]] = {}


def program(package: str) -> Callable[[Program], Program]:
    def register(function: Program) -> Program:
        PROGRAMS[function.__name__] = package, function
        return function

    return register


def trained(
    model: nn.Module, loss_of: Callable[[], Tensor], updates: int, rate: float = 1e-3
) -> list[float]:
    """The losses of so many updates by Adam."""
    optimizer, losses = torch.optim.Adam(model.parameters(), rate), []
    for _ in range(-(-updates // SHARE)):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def waves(n: int, T: int, channels: int, classes: int) -> tuple[Tensor, Tensor]:
    """Sequences `[n, T, channels]` of waves, whose frequency is the class."""
    labels = torch.randint(classes, (n,))
    t = torch.arange(T) / T * 6.28
    phase = torch.rand(n, 1, channels) * 6.28
    x = torch.sin(t[None, :, None] * (1 + labels)[:, None, None] + phase)
    return x + 0.3 * torch.randn(n, T, channels), labels


@program("sb3-contrib")
def ppo_lstm(fast: bool, seed: int) -> list[float]:
    """CartPole without its velocities: the policy has to remember. Mean rewards of the rollouts."""
    import gymnasium
    import numpy as np
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env

    def masked(env: Any) -> Any:
        space = gymnasium.spaces.Box(-5.0, 5.0, (2,))
        return gymnasium.wrappers.TransformObservation(env, lambda o: o[[0, 2]], space)

    envs = make_vec_env("CartPole-v1", 8, seed=seed, wrapper_class=masked)
    agent = RecurrentPPO(
        "MlpLstmPolicy",
        envs,
        n_steps=128,
        batch_size=256,
        seed=seed,
        device="cpu",
        policy_kwargs={"lstm_hidden_size": 64},
    )
    if fast:
        ostinato.accelerate(agent.policy, loops=True)
    rewards = []
    for _ in range(-(-24 // SHARE)):
        agent.learn(1024, reset_num_timesteps=False)
        rewards.append(float(np.mean([e["r"] for e in agent.ep_info_buffer])))
    return rewards


@program("snntorch")
def spiking_classifier(fast: bool, seed: int) -> list[float]:
    """An epoch of the network of snntorch's tutorials."""
    import snntorch
    from snntorch import surrogate

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            spike = surrogate.fast_sigmoid()
            self.fc1, self.fc2 = nn.Linear(16, 64), nn.Linear(64, 8)
            self.lif1 = snntorch.Leaky(beta=0.9, spike_grad=spike)
            self.lif2 = snntorch.Leaky(beta=0.9, spike_grad=spike)

        def forward(self, x: Tensor) -> Tensor:
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            mem2_rec = []
            for step in range(x.size(0)):
                spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
                _, mem2 = self.lif2(self.fc2(spk1), mem2)
                mem2_rec.append(mem2)
            return torch.stack(mem2_rec)

    model, (x, labels) = Net(), waves(61440, 100, 16, 8)
    if fast:
        ostinato.accelerate(model, loops=True)
    batches = iter(zip(x.split(64), labels.split(64), strict=True))

    def loss_of() -> Tensor:
        inputs, targets = next(batches)
        return F.cross_entropy(model(inputs.transpose(0, 1)).mean(0), targets)

    return trained(model, loss_of, 960)


@program("spikingjelly")
def spiking_jelly(fast: bool, seed: int) -> list[float]:
    """The same by spikingjelly, step by step."""
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            atan = surrogate.ATan()
            self.layers = nn.Sequential(
                layer.Linear(16, 64),
                neuron.LIFNode(tau=2.0, surrogate_function=atan),
                layer.Linear(64, 8),
                neuron.LIFNode(tau=2.0, surrogate_function=atan),
            )

        def forward(self, x: Tensor) -> Any:
            rate: Any = 0.0
            for t in range(x.shape[0]):
                rate += self.layers(x[t])
            return rate / x.shape[0]

    model, (x, labels) = Net(), waves(61440, 60, 16, 8)
    if fast:
        ostinato.accelerate(model, loops=True)
    batches = iter(zip(x.split(64), labels.split(64), strict=True))

    def loss_of() -> Tensor:
        functional.reset_net(model)
        inputs, targets = next(batches)
        return F.mse_loss(model(4 * inputs.transpose(0, 1)), F.one_hot(targets, 8).float())

    return trained(model, loss_of, 960)


@program("norse")
def spiking_memory(fast: bool, seed: int) -> list[float]:
    """Recurrent adaptive neurons."""
    import norse.torch as norse

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neurons, self.head = norse.LSNNRecurrent(16, 64), nn.Linear(64, 8)

        def forward(self, x: Tensor) -> Tensor:
            spikes, _ = self.neurons(x)
            return self.head(spikes.mean(0))

    model, (x, labels) = Net(), waves(92160, 60, 16, 8)
    if fast:
        ostinato.accelerate(model, loops=True)
    batches = iter(zip(x.split(64), labels.split(64), strict=True))

    def loss_of() -> Tensor:
        inputs, targets = next(batches)
        return F.cross_entropy(model(9 * inputs.transpose(0, 1).contiguous()), targets)

    return trained(model, loss_of, 1440)


@program("pytorch-crf")
def crf_tagger(fast: bool, seed: int) -> list[float]:
    """An LSTM of both directions under a linear-chain CRF; then the best tags of all sentences."""
    from torchcrf import CRF

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(200, 32)
            self.lstm = nn.LSTM(32, 32, batch_first=True, bidirectional=True)
            self.head, self.crf = nn.Linear(64, 9), CRF(9, batch_first=True)

        def forward(self, words: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
            return -self.crf(self.emitted(words), tags, mask, reduction="mean")

        def emitted(self, words: Tensor) -> Tensor:
            return self.head(self.lstm(self.words(words))[0])

    words = torch.randint(200, (49152, 60))
    tags = (words + words.roll(1, 1)) % 9
    mask = torch.arange(60) < torch.randint(30, 61, (49152, 1))
    model = Tagger()
    if fast:
        ostinato.accelerate(model, loops=True)
    batches = iter(zip(words.split(32), tags.split(32), mask.split(32), strict=True))
    losses = trained(model, lambda: model(*next(batches)), 1536, 1e-2)
    with torch.no_grad():
        best = model.crf.decode(model.emitted(words[:64]), mask[:64])
    right = sum(
        a == b
        for row, of in zip(best, tags.tolist(), strict=False)
        for a, b in zip(row, of, strict=False)
    )
    return [*losses, right / sum(map(len, best))]


@program("torchsde")
def latent_sde(fast: bool, seed: int) -> list[float]:
    """A latent SDE with a posterior drift, its Kullback-Leibler divergence by torchsde."""
    if fast:
        sys.path.append(str(Path(__file__).parents[2] / "examples"))
        from torchsde_fixed_step import sdeint
    else:
        from torchsde import sdeint

    class Latent(nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self) -> None:
            super().__init__()
            self.posterior = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 4))
            self.prior = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 4))
            self.scale, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
            self.begin = nn.Linear(2, 4)

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return self.posterior(y)

        def h(self, t: Tensor, y: Tensor) -> Tensor:
            return self.prior(y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return 0.1 + torch.sigmoid(self.scale(y))

    model, ts = Latent(), torch.linspace(0, 1, 41)
    seen = torch.stack([(5 * ts).sin(), (5 * ts).cos()], -1)[:, None] + 0.1 * torch.randn(41, 64, 2)

    def loss_of() -> Tensor:
        y0 = model.begin(seen[0])
        ys, kl = sdeint(model, y0, ts, dt=0.0125, method="euler", logqp=True)
        return (model.head(ys) - seen).square().mean() + 1e-3 * kl.sum(0).mean()

    return trained(model, loss_of, 720)


@program("torchdiffeq")
def neural_ode(fast: bool, seed: int) -> list[float]:
    """A neural ODE by rk4 with a fixed step, through the solver."""
    from torchdiffeq import odeint

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))

        def field(self, t: Tensor, y: Tensor) -> Tensor:
            return self.net(y**3)

        def forward(self, y: Tensor, ts: Tensor) -> Any:
            return odeint(self.field, y, ts, method="rk4")

    model, ts = Model(), torch.linspace(0, 4, 101)
    turn = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    y0 = torch.randn(64, 2)
    wanted = torch.stack([y0 @ torch.matrix_exp(turn * t) for t in ts])
    if fast:
        ostinato.accelerate(model, loops=True)
    return trained(model, lambda: (model(y0, ts) - wanted).abs().mean(), 600)


@program("hydrodl2")
def basin_model(fast: bool, seed: int) -> list[float]:
    """HBV with 16 sets of parameters for each of 20 basins, calibrated over two years."""
    from hydrodl2.models.hbv.hbv import Hbv

    class Basins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hbv = Hbv({"nmul": 16, "warm_up": 0, "dynamic_params": {"Hbv": []}})
            self.weights = nn.Parameter(torch.randn(20, 12 * 16 + 2))

        def forward(self, weather: Tensor) -> Any:
            raw = torch.sigmoid(self.weights).expand(len(weather), -1, -1)
            return self.hbv({"x_phy": weather}, raw)["streamflow"]

    weather = torch.rand(730, 20, 3) * torch.tensor([20.0, 20.0, 5.0])
    model, true = Basins(), Basins()
    with torch.no_grad():
        wanted = true(weather)
    if fast:
        ostinato.accelerate(model, loops=True)
    return trained(model, lambda: (model(weather) - wanted).square().mean(), 30, 3e-2)


@program("ncps")
def liquid_network(fast: bool, seed: int) -> list[float]:
    """An LTC network with the wiring of ncps, of which each step is six steps of a solver."""
    from ncps.torch import LTC
    from ncps.wirings import AutoNCP

    model, (x, labels) = LTC(4, AutoNCP(24, 8), batch_first=True), waves(12288, 48, 4, 8)
    if fast:
        ostinato.accelerate(model, loops=True)
    batches = iter(zip(x.split(32), labels.split(32), strict=True))

    def loss_of() -> Tensor:
        inputs, targets = next(batches)
        return F.cross_entropy(model(inputs)[0][:, -1], targets)

    return trained(model, loss_of, 384, 1e-2)


@program("xlstm")
def scalar_lstm(fast: bool, seed: int) -> list[float]:
    """A language model on the sLSTM layer, by its code for CPUs."""
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = sLSTMLayerConfig(
                embedding_dim=64, num_heads=4, backend="vanilla", conv1d_kernel_size=0
            )
            self.words, self.layer = nn.Embedding(50, 64), sLSTMLayer(config)
            self.head = nn.Linear(64, 50)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(self.words(x)))

    model, text = Model(), torch.randint(50, (288, 16, 1)) + torch.arange(101) * 3
    text %= 50
    if fast:
        ostinato.accelerate(model, loops=True)
    batches = iter(text)

    def loss_of() -> Tensor:
        x = next(batches)
        return F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())

    return trained(model, loss_of, 288, 1e-2)


@program("neuralhydrology")
def rainfall_runoff(fast: bool, seed: int) -> list[float]:
    """neuralhydrology's CustomLSTM: a year of days for each sample."""
    from neuralhydrology.modelzoo import get_model
    from neuralhydrology.utils.config import Config

    settings = {
        "model": "customlstm",
        "hidden_size": 32,
        "dynamic_inputs": ["a", "b", "c"],
        "target_variables": ["q"],
        "output_activation": "linear",
        "head": "regression",
        "output_dropout": 0.0,
        "initial_forget_bias": 3,
        "seq_length": 365,
        "predict_last_n": 1,
    }
    model = get_model(Config(settings))
    x = torch.rand(9600, 365, 3)
    flow = (x[..., 0] * 0.99 ** torch.arange(364, -1, -1)).sum(1) / 100
    if fast:
        ostinato.accelerate(model, loops=True)
    batches = iter(zip(x.split(32), flow.split(32), strict=True))

    def loss_of() -> Tensor:
        inputs, target = next(batches)
        named = {k: inputs[..., i : i + 1] for i, k in enumerate("abc")}
        return (model({"x_d": named})["y_hat"][:, -1, 0] - target).square().mean()

    return trained(model, loss_of, 300)
