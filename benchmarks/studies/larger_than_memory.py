"""Memory and time of examples in a file: `python -m benchmarks.studies.larger_than_memory`.

Writes a Parquet file of random sequences (2 GB by default), reads it in blocks, stores it, fits a
preparation, and takes all batches of some epochs. Memory is the highest there was until then, less
that after the imports. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch  # noqa: F401  # a training has it imported too
from pyarrow import parquet

from ostinato.data import Batches, Preparation, Roles, store_examples, stream_examples

BATCH_SIZE = 128
PARTS = 20  # row groups of the file


def write(path: Path, n: int, n_steps: int, n_features: int) -> None:
    """n sequences of normal numbers, with one of five labels each."""
    generator = np.random.default_rng(0)
    writer = None
    for part in range(PARTS):
        rows = n // PARTS
        offsets = np.arange(rows + 1, dtype=np.int32) * n_steps
        columns: dict[str, object] = {"id": np.arange(part * rows, (part + 1) * rows)}
        for i in range(n_features):
            values = generator.standard_normal(rows * n_steps, np.float32)
            columns[f"x{i}"] = pa.ListArray.from_arrays(offsets, values)
        columns["y"] = generator.integers(0, 5, rows)
        table = pa.table(columns)
        if writer is None:
            writer = parquet.ParquetWriter(
                path, table.schema, compression="none", use_dictionary=False
            )
        writer.write_table(table)
    if writer is not None:
        writer.close()


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(path: Path, n_features: int, epochs: int) -> dict[str, object]:
    features = tuple(f"x{i}" for i in range(n_features))
    roles = Roles("nested", "id", features=features, target="y", task="classify")
    before = megabytes()
    found: dict[str, object] = {"file_mb": path.stat().st_size / 1e6, "imports_mb": before}

    def tell(what: str, started: float) -> None:
        found[what] = {
            "s": time.perf_counter() - started,
            "beyond_imports_mb": megabytes() - before,
        }
        print(f"{what}: {found[what]}", flush=True)

    started = time.perf_counter()
    examples = store_examples(stream_examples(path, roles))
    tell("store", started)
    started = time.perf_counter()
    batches = Batches(Preparation.fit(examples).apply(examples), examples.y, BATCH_SIZE)
    tell("prepare", started)
    for epoch in range(epochs):
        started = time.perf_counter()
        for _ in range(batches.batches_per_epoch):
            batches.next_batch()
        tell(f"epoch {epoch}", started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--features", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--file", type=Path, help="made if it does not exist, and kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder, "sequences.parquet")
        if not path.exists():
            # In a process of its own, so that its memory does not count.
            arguments = (path, given.sequences, given.steps, given.features)
            process = multiprocessing.get_context("spawn").Process(target=write, args=arguments)
            process.start()
            process.join()
        print(json.dumps(measure(path, given.features, given.epochs)))


if __name__ == "__main__":
    main()
