"""Tables on disk take the same memory however large they are."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all memory on Linux"),
]

N, STEPS, FEATURES, ROW_GROUPS = 300_000, 100, 5, 60  # 600 MB as float32
LIMIT = 450 << 20  # bytes beyond the imports, mapped files not counted

PROGRAM = """
import resource, sys
import numpy as np
import pyarrow.compute, pyarrow.parquet, torch
from ostinato_learn.data import Batches, Preparation, Roles
from ostinato_learn.data import read_examples, store_examples, stream_examples
from ostinato_learn.data.series.panel import Panel
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.tasks.forecast.fit import fit
from ostinato_learn.training.plan import Plan
from ostinato_learn.data.series import of_examples as forecast
from ostinato_learn.tasks.forecast.loss import ForecastSettings

how, path, limit = sys.argv[1:]
data = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmData" in line) << 10
resource.setrlimit(resource.RLIMIT_DATA, (data + int(limit),) * 2)
features = tuple(f"x{i}" for i in range(5))
if how == "forecast":
    roles = Roles("nested", "id", features=features[1:], target="x0", task="forecast")
    series = store_examples(stream_examples(path, roles))
    preparation = Preparation.fit(series, missing="forward", standardize=False)
    panel = forecast.panel_of(series, preparation, unseen=True).before(2)
    settings, plan = ForecastSettings(horizon=2, context=4), Plan(iterations=3, batch_size=64)
    fit(panel, settings, Architecture(hidden_size=4), plan)
else:
    roles = Roles("nested", "id", features=features, target="y", task="classify")
    found = read_examples(path, roles) if how == "memory" else store_examples(
        stream_examples(path, roles)
    )
    chosen = found.select(np.arange(len(found))[::-1])
    X = Preparation.fit(chosen).apply(chosen)
    batches = Batches(X, chosen.y, 128)
    for _ in batches:
        pass
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "table.parquet"
    generator, rows = np.random.default_rng(0), N // ROW_GROUPS
    offsets = np.arange(rows + 1, dtype=np.int32) * STEPS
    writer = None
    for group in range(ROW_GROUPS):
        columns: dict[str, object] = {"id": np.arange(group * rows, (group + 1) * rows)}
        for i in range(FEATURES):
            values = generator.standard_normal(rows * STEPS, np.float32)
            columns[f"x{i}"] = pa.ListArray.from_arrays(offsets, values)
        columns["y"] = generator.integers(0, 5, rows)
        table = pa.table(columns)
        writer = writer or parquet.ParquetWriter(
            path, table.schema, compression="none", use_dictionary=False
        )
        writer.write_table(table)
    writer.close()
    return path


@pytest.mark.parametrize("how", ["classify", "forecast", "memory"])
def test_a_table_of_600_megabytes_within_450(path, how):
    """That the limit holds is seen in memory, where it does not suffice."""
    threads = {"OMP_NUM_THREADS": "2"}  # each has a stack of 8 MB that the limit counts
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, path, str(LIMIT)],
        capture_output=True,
        text=True,
        env=os.environ | threads,
    )
    assert (ended.returncode != 0) == (how == "memory"), ended.stderr
    assert how != "memory" or "rror" in ended.stderr
