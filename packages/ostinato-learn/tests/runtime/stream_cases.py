"""Models as values, and the streams that play them."""

from __future__ import annotations

from typing import Any

import numpy as np
from graph_parts import Parts

from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.stream_source import StreamSource

FINGERPRINT = "ab" * 32


def source(parts: Parts, graph: Any, **options: Any) -> StreamSource:
    names = [f"label {i}" for i in range(graph.n_outputs)]
    network = Network(graph, parts.tensors)
    return StreamSource(network, names, fingerprint=FINGERPRINT, **options)


def rows(T: int, F: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(T, F)).astype(np.float32)
