"""A saved model as one ONNX file.

model.py    the whole graph, in the forms `sequence` and `step`
scan.py     a direction of a layer, as an operator or as a Scan
cells.py    which steps are the operators RNN, GRU and LSTM
step.py     the nodes of one step
ops.py      one row an operation
forecast.py windows of series, and quantiles in their units
prepare.py  scaling and missing values
writer.py   names, constants, nodes
parity.py        the file in ONNX Runtime, against the runtime
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato_learn import files
from ostinato_learn.export import parity
from ostinato_learn.export.onnx.model import Exportable, sequence_model, step_model
from ostinato_learn.export.onnx.writer import IR_VERSION, OPSET
from ostinato_learn.export.parity import Parity
from ostinato_learn.runtime.model import Model
from ostinato_learn.tasks.forecast.model import Forecaster

FORMS = ("sequence", "step")


@dataclass(frozen=True)
class OnnxReport:
    """The written file.

    Attributes:
        path: the path of the file.
        form: "sequence" or "step".
        operators: how often each operator computes a direction of a layer; empty for a step.
        size: the size of the file in bytes.
        inputs, outputs: name → shape, in which a text is an open size.
        parity: the differences of its answers from the runtime's; None: ONNX Runtime is not
            installed.
    """

    path: Path
    form: str
    operators: dict[str, int]
    size: int
    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    parity: Parity | None

    def __str__(self) -> str:
        by = ", ".join(f"{n} × {name}" for name, n in self.operators.items()) or "plain operations"
        lines = [
            f"{self.path}: {self.size:,} bytes, form {self.form}, opset {OPSET}, IR {IR_VERSION}",
            f"  layers   {by}",
            *(f"  input    {name} {_shown(shape)}" for name, shape in self.inputs.items()),
            *(f"  output   {name} {_shown(shape)}" for name, shape in self.outputs.items()),
        ]
        if self.parity is None:
            lines.append("  parity   not checked: pip install onnxruntime, and export again")
        else:
            lines += [f"  parity   {line}" for line in str(self.parity).splitlines()]
        return "\n".join(lines)


def export_onnx(model: Model, path: str | Path, form: str = "sequence") -> OnnxReport:
    """Write a model as an ONNX file, checked against the runtime before it is written.

    Args:
        model: what `ostinato_learn.runtime.load` gives.
        path: the path of the file; an existing file is replaced.
        form: "sequence": whole sequences, with their lengths; "step": one step, with the states as
            inputs and outputs, which begin at zeros (`latest` at NaN).

    Raises:
        ValueError: the form is unknown; or the model has no such form; or its answers in ONNX
            Runtime differ from the runtime's by more than rounding: nothing is written.
        ModuleNotFoundError: onnx is not installed.
        OSError: the file cannot be written.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r} is not known; wanted one of {', '.join(FORMS)}")
    source = exportable(model)
    made = sequence_model(source) if form == "sequence" else step_model(source)
    content = made.proto.SerializeToString()
    found = parity.measure(model, content, form)
    if found is not None:
        found.check()
    files.write_bytes(Path(path), content)
    graph = made.proto.graph
    return OnnxReport(
        path=Path(path),
        form=form,
        operators=dict(Counter(made.operators)),
        size=len(content),
        inputs={v.name: _shape(v) for v in graph.input},
        outputs={v.name: _shape(v) for v in graph.output},
        parity=found,
    )


def exportable(model: Model) -> Exportable:
    """The parts of a model in the file. A CRF is left out: the answers are the scores before it."""
    metadata: dict[str, Any] = {"kind": model.kind, "fingerprint": model.fingerprint}
    metadata["labels"] = model.labels.tolist()
    vocabulary = getattr(model, "vocabulary", None)
    if vocabulary is not None:
        metadata["vocabulary"] = vocabulary.as_json()
    metadata |= model.described_answer()
    if model.graph.ahead is not None:
        assert isinstance(model, Forecaster)
        metadata |= {name: getattr(model.windows, name) for name in ("context", "horizon")}
        metadata |= named_inputs(model)
        return Exportable(model.graph, model.tensors, windows=model.windows, metadata=metadata)
    return Exportable(
        model.graph, model.tensors, model.preparation, model.scaling, metadata=metadata
    )


def _shape(value: Any) -> list[Any]:
    dims = value.type.tensor_type.shape.dim
    return [d.dim_param or d.dim_value for d in dims]


def _shown(shape: list[Any]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def named_inputs(model: Forecaster) -> dict[str, list[str]]:
    """The columns of `past`, `future` and `static` in order; none for a model of arrays.

    A column of words in a table is one column for each word, such as "colour=red".
    """
    preparation = model.preparation
    if preparation is None or preparation.roles is None:
        return {}
    known = preparation.roles.known
    columns = [(f.name in known, column) for f in preparation.features for column in f.columns]
    return {
        "past": [column for is_known, column in columns if not is_known],
        "future": [column for is_known, column in columns if is_known],
        "static": list(preparation.static_columns),
    }
