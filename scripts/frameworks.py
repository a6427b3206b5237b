"""Training in Lightning, skorch and Hugging Face's Trainer, with torch.nn's layers and accelerated.

    pip install lightning skorch transformers accelerate
    python scripts/frameworks.py

In each framework two models with the same weights are trained alike by the framework's own loop,
one of them after `ostinato.accelerate(model)`. The table gives the difference of their losses, the
number of passes that the native engine played, and the difference of outputs after each model has
loaded the other's checkpoint. Exits 1 if a loss differs by more than 1e-4 of itself, a layer was
not swapped, the engine did not play every training step forward and backward, or outputs after
loading a checkpoint differ by more than 1e-4.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ostinato
from ostinato.compiler.play.step import CompiledStep
from ostinato.nn import inspect

N_STEPS, BATCH = 12, 16  # training steps, and sequences in each
RELATIVE = 1e-4  # tolerance: both ways sum float32 in different orders, in N_STEPS training steps
X = torch.randn(N_STEPS * BATCH, 20, 8, generator=torch.Generator().manual_seed(1))
Y = (X[:, :, 0].cumsum(1)[:, -1] > 0).long()
HEAD = [
    "framework",
    "swapped",
    "played forward, backward",
    "largest relative difference of losses",
    "checkpoint to torch.nn",
    "checkpoint from torch.nn",
]

plays: Counter[str] = Counter()


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 24, num_layers=2, dropout=0.1, batch_first=True)
        self.head = torch.nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@dataclass(frozen=True)
class Framework:
    """How one framework makes, trains and loads a model.

    Attributes:
        package: its name in the package index.
        make: returns a new model.
        train: (model, folder) → (the loss of every training step, the path of a checkpoint).
        load: (model, checkpoint) → the module with the weights of the checkpoint.
    """

    package: str
    make: Callable[[], Any]
    train: Callable[[Any, Path], tuple[list[float], Path]]
    load: Callable[[Any, Path], Any]


def in_lightning() -> Framework:
    import lightning

    for name in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.ERROR)

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.losses = Classifier(), []

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-2)

    def train(model: Any, folder: Path) -> tuple[list[float], Path]:
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
        )
        dataset = torch.utils.data.TensorDataset(X, Y)
        trainer.fit(model, torch.utils.data.DataLoader(dataset, BATCH, shuffle=True))
        trainer.save_checkpoint(folder / "last.ckpt")
        return model.losses, folder / "last.ckpt"

    def load(model: Any, checkpoint: Path) -> Any:
        model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
        return model

    return Framework("lightning", Lit, train, load)


def in_skorch() -> Framework:
    import skorch

    def net(model: Any) -> Any:
        return skorch.NeuralNetClassifier(
            model,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-2,
            max_epochs=1,
            batch_size=BATCH,
            train_split=None,
            verbose=0,
        )

    def train(model: Any, folder: Path) -> tuple[list[float], Path]:
        trained = net(model).fit(X.numpy(), Y.numpy())
        trained.save_params(f_params=folder / "params.pt")
        return trained.history[-1, "batches", :, "train_loss"], folder / "params.pt"

    def load(model: Any, checkpoint: Path) -> Any:
        fresh = net(model).initialize()
        fresh.load_params(f_params=checkpoint)
        return fresh.module_

    return Framework("skorch", Classifier, train, load)


def in_transformers() -> Framework:
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing may be downloaded
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    class Pretrained(transformers.PreTrainedModel):
        config_class = transformers.PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = Classifier()
            self.post_init()

        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
            logits = self.model(x)
            if labels is None:
                return logits
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def train(model: Any, folder: Path) -> tuple[list[float], Path]:
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            num_train_epochs=1,
            learning_rate=1e-2,
            per_device_train_batch_size=BATCH,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        dataset = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
        trainer = transformers.Trainer(model, arguments, train_dataset=dataset)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        trainer.save_model(str(folder / "saved"))
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return losses, folder / "saved"

    def load(model: Any, checkpoint: Path) -> Any:
        model.load_state_dict(type(model).from_pretrained(checkpoint).state_dict())
        return model

    return Framework(
        "transformers", lambda: Pretrained(transformers.PretrainedConfig()), train, load
    )


def study(framework: Framework, folder: Path) -> tuple[list[str], bool]:
    """A row of the table, and whether every condition of this script holds in it."""
    torch.manual_seed(0)
    theirs, ours = framework.make(), framework.make()
    ours.load_state_dict(theirs.state_dict())
    ostinato.accelerate(ours)
    wanted, their_file = trained(framework, theirs, folder / "torch")
    plays.clear()
    losses, our_file = trained(framework, ours, folder / "ostinato")
    played = dict(plays)
    layers = inspect(ours)
    n_swapped = sum(layer.accelerated for layer in layers)
    differences = [abs(a - b) / abs(b) for a, b in zip(losses, wanted, strict=True)]
    to_torch = apart(framework.load(framework.make(), our_file), ours)
    from_torch = apart(framework.load(ostinato.accelerate(framework.make()), their_file), theirs)
    version = importlib.metadata.version(framework.package)
    n_forward, n_backward = played.get("forward", 0), played.get("backward", 0)
    row = [
        f"{framework.package} {version}",
        f"{n_swapped} of {len(layers)}",
        f"{n_forward}, {n_backward}",
        f"{max(differences):.1e}",
        f"{to_torch:.1e}",
        f"{from_torch:.1e}",
    ]
    fine = (
        len(losses) == N_STEPS
        and len(set(wanted)) == N_STEPS  # training changes the loss
        and max(differences) <= RELATIVE
        and n_swapped == len(layers) == 1
        and min(n_forward, n_backward) >= 2 * N_STEPS  # the LSTM has two layers, so two scans
        and max(to_torch, from_torch) <= RELATIVE
    )
    return row, fine


def trained(framework: Framework, model: Any, folder: Path) -> tuple[list[float], Path]:
    folder.mkdir(parents=True)
    torch.manual_seed(0)  # for dropout and shuffling
    return framework.train(model, folder)


def apart(one: Any, other: Any) -> float:
    """The largest difference of the outputs of two models, one with torch.nn's LSTM, one with ours.

    Infinite if both have the same class of LSTM.
    """
    if type(lstm_of(one)) is type(lstm_of(other)):
        return math.inf
    with torch.no_grad():
        return float((one.eval()(X) - other.eval()(X)).abs().max())


def lstm_of(model: Any) -> Any:
    return next(m for m in model.modules() if isinstance(m, torch.nn.LSTM))


def counted(f: Any, name: str) -> Any:
    def wrapper(compiled: CompiledStep, *args: Any, **kwargs: Any) -> Any:
        plays[name] += compiled.engine == "native"
        return f(compiled, *args, **kwargs)

    return wrapper


def main() -> int:
    warnings.simplefilter("ignore")  # the frameworks warn of few workers and the like
    for name in ("forward", "backward"):
        setattr(CompiledStep, name, counted(getattr(CompiledStep, name), name))
    rows, all_fine = [], True
    for build in (in_lightning, in_skorch, in_transformers):
        with tempfile.TemporaryDirectory() as folder:
            row, fine = study(build(), Path(folder))
        rows.append(row)
        all_fine &= fine
    for line in [HEAD, ["---"] * 2 + ["---:"] * 4, *rows]:
        print("| " + " | ".join(line) + " |")
    print(f"\nPyTorch {torch.__version__}, {N_STEPS} steps, dropout included: ", end="")
    print("all as it should be" if all_fine else "NOT as it should be")
    return 0 if all_fine else 1


if __name__ == "__main__":
    sys.exit(main())
