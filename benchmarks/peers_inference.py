"""How ONNX Runtime, OpenVINO and PyTorch classify a batch of sequences.

All of them read the same `[B, T, F]` and give the same `[B, C]` with the same float32 weights: a
recurrent layer, the output of its last step, a linear map, softmax. Each has its best form:

    ONNX Runtime   its own operator RNN, GRU or LSTM, with fixed shapes; its threads sleep between
                   runs, and within a run they sleep or spin
    OpenVINO       the same file, in float32, since its answers in bfloat16 are others; one request
                   on all threads, or a request a thread, which have a share of the rows each
    PyTorch        its layer in inference mode, which uses oneDNN where PyTorch does
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.problem import Answer, Entrant, Maker, NotHereError
from ostinato_learn.export.onnx.cells import recognised
from ostinato_learn.runtime.model import Model

IR_VERSION, OPSET = 10, 18


def peers(model: Model, X: Any, threads: int) -> list[Maker]:
    """The contenders, each on so many threads.

    Args:
        model: a classifier of one recurrent layer in one direction.
        X: `[B, T, F]` float32.
    """
    makers = [
        Maker("ONNX Runtime", lambda: _onnx_runtime(model, X, threads, spins=False)),
        Maker("OpenVINO", lambda: _openvino(model, X, threads)),
        Maker("PyTorch", lambda: _torch(model, X)),
    ]
    if threads > 1:
        makers += [
            Maker("ONNX Runtime, spinning", lambda: _onnx_runtime(model, X, threads, spins=True)),
            Maker("OpenVINO, a request a thread", lambda: _openvino_requests(model, X, threads)),
        ]
    return makers


def answer(found: Any) -> Answer:
    return {"answer": np.asarray(found)}


# ---- PyTorch


def torch_net(model: Model) -> Any:
    """The network in PyTorch's own layers: `[B, T, F]` → `[B, C]`."""
    import torch

    weights = {name: torch.tensor(array) for name, array in model.tensors.items()}
    kind = model.graph.layers[0].name.split()[0].upper()
    n_gates_h, F = weights["body.weight_ih_l0"].shape
    C, H = weights["readout.weight"].shape
    assert n_gates_h == H * {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = getattr(torch.nn, kind)(F, H, batch_first=True)
            self.readout = torch.nn.Linear(H, C)

        def forward(self, x: Any) -> Any:
            return self.readout(self.body(x)[0][:, -1]).softmax(1)

    net = Net()
    net.load_state_dict(weights)
    return net.eval()


def _torch(model: Model, X: Any) -> Entrant:
    import torch

    net, x = torch_net(model), torch.from_numpy(X)

    def run() -> Any:
        with torch.inference_mode():
            return net(x)

    return Entrant(run, answer)


def right(model: Model, X: Any) -> Answer:
    """The answers in float64, by PyTorch."""
    import torch

    with torch.inference_mode():
        return answer(torch_net(model).double()(torch.from_numpy(X).double()))


# ---- ONNX


def onnx_file(model: Model, shape: tuple[int, int, int]) -> bytes:
    """The network for `[B, T, F]` of fixed sizes, with the operator RNN, GRU or LSTM."""
    from onnx import TensorProto, checker, helper, numpy_helper

    (direction,) = model.graph.layers[0].directions
    cell = recognised(direction.step, model.tensors)
    assert cell is not None
    constants = {
        "W": cell.W,
        "R": cell.R,
        "B": cell.B,
        "first": np.array([0]),
        "V": model.tensors["readout.weight"],
        "c": model.tensors["readout.bias"],
    }
    cell_node = helper.make_node(
        cell.op,
        ["time_major", "W", "R", "B"],
        ["", "last"],
        hidden_size=cell.hidden_size,
        **cell.attrs,
    )
    nodes = [
        helper.make_node("Transpose", ["x"], ["time_major"], perm=[1, 0, 2]),
        cell_node,
        helper.make_node("Squeeze", ["last", "first"], ["h"]),
        helper.make_node("Gemm", ["h", "V", "c"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["answer"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, (shape[0], len(model.labels)))],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()],
    )
    made = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    checker.check_model(made)
    return made.SerializeToString()


def _onnx_runtime(model: Model, X: Any, threads: int, spins: bool) -> Entrant:
    """spins: its threads spin during a run, and stop when it ends."""
    _need("onnx", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    content = onnx_file(model, X.shape)
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    return Entrant(lambda: session.run(None, {"x": X})[0], answer)


# ---- OpenVINO


def _compiled(model: Model, shape: tuple[int, int, int], threads: int, streams: int) -> Any:
    _need("onnx", "openvino")
    import openvino

    core = openvino.Core()
    hint = "LATENCY" if streams == 1 else "THROUGHPUT"
    return core.compile_model(
        core.read_model(onnx_file(model, shape)),
        "CPU",
        {
            "PERFORMANCE_HINT": hint,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )


def _openvino(model: Model, X: Any, threads: int) -> Entrant:
    request = _compiled(model, X.shape, threads, 1).create_infer_request()
    return Entrant(lambda: request.infer([X], share_inputs=True)[0], answer)


def _openvino_requests(model: Model, X: Any, threads: int) -> Entrant:
    """Each request has its share of the rows, all run at once."""
    B, T, F = X.shape
    if B % threads:
        raise NotHereError(f"{B} rows cannot be divided among {threads} requests")
    share = B // threads
    compiled = _compiled(model, (share, T, F), threads, threads)
    requests = [compiled.create_infer_request() for _ in range(threads)]
    pieces = [X[i * share : (i + 1) * share] for i in range(threads)]

    def run() -> Any:
        for request, piece in zip(requests, pieces, strict=True):
            request.start_async([piece], share_inputs=True)
        for request in requests:
            request.wait()
        return np.concatenate([request.get_output_tensor().data for request in requests])

    return Entrant(run, answer)


def _need(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise NotHereError(f"{package} is not installed")
