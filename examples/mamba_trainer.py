"""An example: fine-tuning a small Mamba by `transformers.Trainer`, its scan in the engine.

    python examples/mamba_trainer.py [--plain] [--steps 30] [--length 512]

The text is a novel of Jane Austen's, which ostinato-datasets has; a token is a byte. The line with
`accelerate` is all that ostinato needs; `--plain` leaves it out.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import MambaConfig, MambaForCausalLM, Trainer, TrainingArguments

import ostinato
from ostinato_learn.datasets import austen


def examples(text: str, length: int, n: int) -> list[dict[str, torch.Tensor]]:
    """The first pieces of a text, which the model learns to continue."""
    tokens = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()
    pieces = tokens[: n * length].reshape(n, length)
    return [{"input_ids": piece, "labels": piece} for piece in pieces]


def trained(
    plain: bool, steps: int, length: int, rows: int, into: str
) -> tuple[list[float], MambaForCausalLM]:
    """Train a model; the losses of the steps, and the model."""
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=256, hidden_size=64, num_hidden_layers=2, use_cache=False)
    model: Any = MambaForCausalLM(config)
    if not plain:
        ostinato.accelerate(model, loops=True)
    trainer = Trainer(
        model,
        TrainingArguments(
            into,
            max_steps=steps,
            per_device_train_batch_size=rows,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=examples(austen()["Persuasion"], length, rows * steps),
    )
    trainer.train()
    return [float(e["loss"]) for e in trainer.state.log_history if "loss" in e], model


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--plain", action="store_true")
    arguments.add_argument("--steps", type=int, default=30)
    arguments.add_argument("--length", type=int, default=512)
    arguments.add_argument("--rows", type=int, default=4)
    arguments.add_argument("--output", default="runs/mamba")
    given = arguments.parse_args()
    losses, model = trained(given.plain, given.steps, given.length, given.rows, given.output)
    print(*ostinato.nn.inspect(model), sep="\n")
    print(*losses)
