"""A saved model as mlflow.pyfunc, which needs no torch either.

    pip install mlflow-skinny pandas
    python examples/serve/mlflow_model.py runs/trips mlflow_trips
    mlflow models serve -m mlflow_trips --env-manager local

What comes is what the runtime's `predict` takes: an array [N, T, F], or a list of texts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.models import ModelSignature, set_model
from mlflow.types import ParamSchema, ParamSpec

import ostinato_learn.runtime
from ostinato_learn.saved.read import model_in

SIGNATURE = ModelSignature(params=ParamSchema([ParamSpec("proba", "boolean", False)]))


class Sequences(mlflow.pyfunc.PythonModel):
    """`predict` of the runtime; with the parameter `proba` its probabilities or quantiles."""

    def load_context(self, context: Any) -> None:
        self.model = ostinato_learn.runtime.load(context.artifacts["model"])

    def predict(self, context, model_input, params=None):  # MLflow takes no hints for arrays
        wanted = ("predict_proba", "predict_quantiles") if (params or {}).get("proba") else ()
        method = next((name for name in wanted if hasattr(self.model, name)), "predict")
        return getattr(self.model, method)(model_input)


set_model(Sequences())  # MLflow keeps this file, not a pickle


def save(run: str, target: str) -> None:
    """Write the model of a run for MLflow, in a directory that does not exist yet."""
    mlflow.pyfunc.save_model(
        target,
        python_model=__file__,
        artifacts={"model": str(model_in(Path(run)))},
        pip_requirements=["ostinato-learn"],
        signature=SIGNATURE,
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("wanted: python mlflow_model.py RUN TARGET")
    save(*sys.argv[1:])
