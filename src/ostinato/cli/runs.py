"""Finding a trained run, or a saved model alone, for the commands that read one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato.cli import config as configuration
from ostinato.cli.config import Config
from ostinato.cli.failures import BadInput
from ostinato.cli.rundir import RunDir


@dataclass(frozen=True)
class Trained:
    """The directory of a model, and the configuration if it belongs to a run."""

    model: Path
    config: Config | None
    run: RunDir | None

    def reading_of(self, source: str) -> str:
        """How this model reads a data set's images as sequences."""
        return self.config.data.as_sequence if self.config and source == "mnist" else "rows"

    def environment(self) -> dict[str, Any]:
        return json.loads(self.run.environment.read_text("utf-8")) if self.run else {}


def find(path: Path) -> Trained:
    """The run directory, or directory of a saved model, at `path`."""
    run = RunDir(path)
    if run.is_run():
        if not run.model.is_dir():
            raise BadInput(
                f"{path} has no trained model yet; finish it with: "
                f"ostinato train --resume --output {path}"
            )
        return Trained(run.model, read_config(run), run)
    if (path / "model.safetensors").is_file():
        return Trained(path, None, None)
    if not path.exists():
        raise BadInput(f"{path}: no such run or model")
    raise BadInput(
        f"{path} is neither a run (with config.toml) nor a saved model (with model.safetensors)"
    )


def read_config(run: RunDir) -> Config:
    return configuration.resolve(configuration.read_file(run.config))
