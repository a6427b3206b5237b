"""Models of other people's packages, each with realistic work, for third_party.py.

Weights and data are parts of the packages or are made here; nothing is downloaded. A package is
imported when its model is made.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import ostinato
from ostinato_learn import datasets

RATE = 16_000  # samples of speech a second


@dataclass(frozen=True)
class Work:
    """One piece of work of a model.

    Attributes:
        run: does the work once and returns the tensors to be compared: outputs, or the gradients of
            one training iteration.
    """

    name: str
    run: Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Made:
    """A model and its work. `works` use this model object, so they use its swapped layers, too."""

    model: torch.nn.Module
    works: list[Work]


@dataclass(frozen=True)
class Subject:
    """A model of a package, not yet built.

    Attributes:
        name: the model's name in the table.
        package: the package whose version the table gives.
        modules: the modules that must be importable.
        install: the arguments of pip that install them.
        make: builds the same model at every call.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    install: str
    make: Callable[[], Made]


# Resemblyzer turns a voice into a vector: an LSTM of three layers, weights in the package.


def resemblyzer() -> Made:
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import wav_to_mel_spectrogram

    encoder = VoiceEncoder("cpu", verbose=False)
    recording = speech(30.0, pitch=120.0)
    mels = np.stack([wav_to_mel_spectrogram(speech(9.0, 90.0 + 20 * i)) for i in range(8)])
    # Five utterances of 1.6 s (160 frames) for each of 8 speakers.
    utterances = torch.from_numpy(mels[:, :800]).reshape(8 * 5, 160, -1)
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-4)

    def embed() -> list[Tensor]:
        return [torch.from_numpy(encoder.embed_utterance(recording))]

    def loss() -> Tensor:
        """GE2E (Wan et al. 2018): compares each utterance with the mean of every speaker."""
        voices = encoder(utterances).reshape(8, 5, -1)
        centroids = F.normalize(voices.mean(1), dim=1)
        similarity = 10.0 * voices.flatten(0, 1) @ centroids.T - 5.0
        return F.cross_entropy(similarity, torch.arange(8).repeat_interleave(5))

    return Made(
        encoder,
        [
            Work("embed 30 s of speech, with its spectrogram", embed),
            Work("train on 8 speakers × 5 × 1.6 s", lambda: iterate(encoder, loss, optimizer)),
        ],
    )


# kraken recognizes text. For pages: bidirectional LSTMs along x and y, weights in the package. For
# lines: its default network, untrained, with three bidirectional LSTMs over packed sequences.

PAGE = (1200, 1800)  # width and height in pixels; the network wants this height


def kraken_pages() -> Made:
    import kraken
    from kraken.lib.dataset import ImageInputTransforms
    from kraken.models import load_models

    (model,) = load_models(Path(kraken.__file__).parent / "blla.mlmodel")
    model.eval()
    prepare = ImageInputTransforms(1, PAGE[1], 0, 3, (0, 0), valid_norm=False)
    page = prepare(drawn(austen_lines(40), PAGE, size=28))[None]

    @torch.inference_mode()
    def segment() -> list[Tensor]:
        return [model(page)[0]]

    return Made(model, [Work(f"heat maps of a page, {PAGE[0]} × {PAGE[1]}", segment)])


def kraken_lines() -> Made:
    from kraken.lib.dataset import ImageInputTransforms
    from kraken.lib.vgsl import TorchVGSLModel

    lines = austen_lines(8)
    alphabet = sorted(set("".join(lines)))
    torch.manual_seed(0)
    model = TorchVGSLModel(
        vgsl="[1,120,0,1 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,9,64 Do0.1,2 Mp2,2 "
        "Cr3,9,64 Do0.1,2 S1(1x0)1,3 Lbx200 Do0.1,2 Lbx200 Do0.1,2 Lbx200 Do "
        f"O1c{len(alphabet) + 1}]"
    )
    prepare = ImageInputTransforms(1, 120, 0, 1, (16, 0), valid_norm=False)
    images = [prepare(drawn([line], (20 * len(line), 60), size=32)) for line in lines]
    widths = torch.tensor([image.shape[2] for image in images])
    batch = torch.stack([F.pad(image, (0, int(widths.max()) - image.shape[2])) for image in images])
    targets = torch.tensor([alphabet.index(letter) + 1 for line in lines for letter in line])
    target_lengths = torch.tensor([len(line) for line in lines])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    @torch.inference_mode()
    def read() -> list[Tensor]:
        model.eval()
        return [model(batch, widths)[0]]

    def loss() -> Tensor:
        model.train()
        output, lengths = model(batch, widths)
        scores = output.log_softmax(1).squeeze(2).permute(2, 0, 1)  # [W, N, C]
        return model.criterion(scores, targets, lengths, target_lengths) / len(lines)

    return Made(
        model,
        [
            Work("read 8 lines of text", read),
            Work("train on 8 lines of text", lambda: iterate(model, loss, optimizer)),
        ],
    )


# neuralforecast has models of time series, fitted here to the airline passengers in the package.


def neuralforecast_gru() -> Made:
    from neuralforecast.models import GRU

    return forecaster(GRU)


def neuralforecast_deepar() -> Made:
    from neuralforecast.models import DeepAR

    return forecaster(DeepAR)


def forecaster(kind: type) -> Made:
    from neuralforecast import NeuralForecast
    from neuralforecast.utils import AirPassengersPanel
    from pytorch_lightning import Callback

    class KeepBatch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            module.kept_batch = batch

    settings = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "callbacks": [KeepBatch()],
    }
    forecast = NeuralForecast(
        [kind(h=12, input_size=36, max_steps=50, scaler_type="robust", **settings)], freq="ME"
    )
    forecast.fit(AirPassengersPanel[["unique_id", "ds", "y"]])
    model = forecast.models[0]
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def predict() -> list[Tensor]:
        return [torch.from_numpy(forecast.predict().select_dtypes("number").to_numpy())]

    def loss() -> Tensor:
        model.train()
        model.trainer = None  # a training step logs to its trainer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # draws the same windows every time
            return model.training_step(model.kept_batch, 0)

    def train() -> list[Tensor]:
        horizon = model.h  # a training step changes it, and predict needs it
        found = iterate(model, loss, optimizer)
        model.h = horizon
        return found

    return Made(
        model,
        [
            Work("forecast a year of 2 series", predict),
            Work(f"train on {model.windows_batch_size} windows of 3 years", train),
        ],
    )


# sb3-contrib has PPO with a recurrent actor and critic; here it plays CartPole.

N_ENVIRONMENTS, N_STEPS = 8, 128


def recurrent_ppo() -> Made:
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env

    games = make_vec_env("CartPole-v1", n_envs=N_ENVIRONMENTS, seed=0)
    agent = RecurrentPPO(
        "MlpLstmPolicy",
        games,
        seed=0,
        device="cpu",
        n_steps=N_STEPS,
        n_epochs=1,
        batch_size=N_ENVIRONMENTS * N_STEPS,
    )
    agent.learn(N_ENVIRONMENTS * N_STEPS)
    played = agent.rollout_buffer
    observations = played.observations.reshape(N_ENVIRONMENTS, N_STEPS, -1)
    starts = played.episode_starts.reshape(N_ENVIRONMENTS, N_STEPS)

    def act() -> list[Tensor]:
        state = None
        for t in range(N_STEPS):
            _, state = agent.predict(observations[:, t], state, starts[:, t], deterministic=True)
        return [torch.from_numpy(leaf) for leaf in state]

    def update() -> list[Tensor]:
        agent.train()
        return gradients(agent.policy)

    return Made(
        agent.policy,
        [
            Work(f"act for {N_STEPS} steps in {N_ENVIRONMENTS} games", act),
            Work(f"one update from {N_ENVIRONMENTS} × {N_STEPS} steps", update),
        ],
    )


def recurrent_ppo_with_resets() -> Made:
    """RecurrentPPO whose accelerated layers play all episodes in one call with resets=."""
    made = recurrent_ppo()
    step_by_step = made.model._process_sequence

    def process(features: Tensor, states: Any, starts: Tensor, lstm: torch.nn.LSTM) -> Any:
        if not isinstance(lstm, ostinato.nn.LSTM):
            return step_by_step(features, states, starts, lstm)
        n_rows = states[0].shape[1]
        xs = features.reshape(n_rows, -1, lstm.input_size).swapaxes(0, 1)
        resets = starts.reshape(n_rows, -1).swapaxes(0, 1).bool()
        output, states = lstm(xs, states, resets=resets)
        return output.transpose(0, 1).flatten(0, 1), states

    made.model._process_sequence = process
    return Made(made.model, made.works[1:])


# Silero VAD finds speech in a recording. The package has it compiled by TorchScript, so accelerate
# leaves it alone.


def silero() -> Made:
    from silero_vad import load_silero_vad

    model = load_silero_vad()
    recording = torch.from_numpy(speech(10.0, pitch=120.0))

    @torch.inference_mode()
    def find() -> list[Tensor]:
        return [model.audio_forward(recording, RATE)]

    return Made(model, [Work("find the speech in 10 s", find)])


KRAKEN = (
    "kraken",
    ("kraken", "coremltools", "lightning", "shapely", "skimage", "torchvision"),
    "--no-deps kraken && pip install coremltools htrmopo iso639-lang jsonschema lightning lxml "
    "pyarrow regex rich scikit-image shapely torchvision",
)
RESEMBLYZER = (
    "resemblyzer",
    ("resemblyzer", "librosa", "webrtcvad"),
    "--no-deps resemblyzer && pip install librosa webrtcvad-wheels",
)
NEURALFORECAST = ("neuralforecast", ("neuralforecast",), "neuralforecast")
SB3 = ("sb3-contrib", ("sb3_contrib",), "sb3-contrib")
SILERO = ("silero-vad", ("silero_vad",), "--no-deps silero-vad")

SUBJECTS = [
    Subject("Resemblyzer", *RESEMBLYZER, resemblyzer),
    Subject("kraken, pages", *KRAKEN, kraken_pages),
    Subject("kraken, lines", *KRAKEN, kraken_lines),
    Subject("neuralforecast GRU", *NEURALFORECAST, neuralforecast_gru),
    Subject("neuralforecast DeepAR", *NEURALFORECAST, neuralforecast_deepar),
    Subject("RecurrentPPO", *SB3, recurrent_ppo),
    Subject("RecurrentPPO, with resets=", *SB3, recurrent_ppo_with_resets),
    Subject("Silero VAD", *SILERO, silero),
]


def iterate(
    model: torch.nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer
) -> list[Tensor]:
    """Make one training iteration and return the gradients."""
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()
    return gradients(model)


def gradients(model: torch.nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A context without the warnings and log messages of the packages."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def speech(seconds: float, pitch: float) -> np.ndarray:
    """Synthetic vowels in a voice of this pitch (Hz), float32 `[RATE · seconds]`.

    Pulses of varying rate pass through three resonances, which change four times a second (formants
    of five vowels, after Peterson and Barney 1952). After every sixth vowel there is a pause.
    """
    from scipy.signal import lfilter

    vowels = [
        (270, 2290, 3010),
        (530, 1840, 2480),
        (730, 1090, 2440),
        (570, 840, 2410),
        (300, 870, 2240),
    ]
    random = np.random.default_rng(int(pitch))
    n, syllable = int(RATE * seconds), RATE // 4
    frequency = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.4 * np.arange(n) / RATE))
    turns = np.cumsum(frequency / RATE)
    source = np.diff(np.floor(turns), prepend=0.0) + 0.01 * random.normal(size=n)
    voice = np.zeros(n)
    for i, start in enumerate(range(0, n, syllable)):
        part = source[start : start + syllable] * (i % 7 != 6)
        for formant in vowels[random.integers(len(vowels))]:
            angle, radius = 2 * np.pi * formant / RATE, 0.97
            part = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], part)
        voice[start : start + syllable] = part * np.hanning(len(part))
    return (0.3 * voice / np.abs(voice).max()).astype(np.float32)


def austen_lines(n: int) -> list[str]:
    """The first n full lines of Pride and Prejudice."""
    lines = datasets.austen()["Pride and Prejudice"].splitlines()
    return [line for line in lines if len(line) > 40][:n]


def drawn(lines: list[str], shape: tuple[int, int], size: int) -> Any:
    """An RGB image of black text on white; shape: (width, height); size: of the font."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", shape, "white")
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((20, 10 + i * 1.5 * size), line, "black", font)
    return image
