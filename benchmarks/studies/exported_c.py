"""One step of exported C code, in float and with int8 weights, beside RTNeural's layers.

    python -m benchmarks.studies.exported_c
    python -m benchmarks.studies.exported_c --rtneural DIR --eigen DIR     with RTNeural (Eigen)

DIR are the checkouts of github.com/jatinchowdhury18/RTNeural and of Eigen 3. The step is that of
the layer, 8 inputs, without the answer: RTNeural's `forward` has none. All play in one process and
take turns, 1,000 steps a round; medians of the rounds. RTNeural has no plain RNN.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import torch

from ostinato_learn.export import c as export
from ostinato_learn.models import ClassifierNet
from ostinato_learn.models.saved_graph import describe

N_INPUTS, N_CLASSES = 8, 4
CELLS, UNITS = ("rnn", "gru", "lstm"), (32, 64, 128)
ROUNDS = 61

DRIVER = """
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>
@HEADERS@
struct Row {
  std::string name;
  std::function<void(const float *)> step;
  std::vector<double> times;
};
static std::vector<Row> rows;
static volatile float sink;
static std::mt19937 source(0);
@LAYERS@
template <class State> void ours(const char *name, void (*init)(State *),
                                 int (*step)(State *, const float *, float *)) {
  State *s = new State;
  init(s);
  rows.push_back({name, [=](const float *x) { step(s, x, nullptr); sink = s->s0[0]; }, {}});
}
int main() {
  std::normal_distribution<float> normal;
  static float x[64][8];
  for (auto &row : x) for (auto &v : row) v = normal(source);
@ROWS@
  for (int round = 0; round < @ROUNDS@; round++)
    for (auto &row : rows) {
      auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < 1000; i++) row.step(x[i % 64]);
      auto end = std::chrono::steady_clock::now();
      row.times.push_back(std::chrono::duration<double, std::micro>(end - begin).count() / 1000);
    }
  for (auto &row : rows) {
    std::sort(row.times.begin(), row.times.end());
    std::printf("%s %.4f\\n", row.name.c_str(), row.times[row.times.size() / 2]);
  }
}
"""
RTNEURAL = """
#include <RTNeural/config.h>
#include <RTNeural/common.h>
#include <RTNeural/gru/gru.h>
#include <RTNeural/lstm/lstm.h>
template <class Layer> void theirs(const char *name, int gates, int H) {
  auto random = [](int n, int m) {
    std::uniform_real_distribution<float> uniform(-.1f, .1f);
    std::vector<std::vector<float>> w(n, std::vector<float>(m));
    for (auto &row : w) for (auto &v : row) v = uniform(source);
    return w;
  };
  auto *layer = new Layer;
  layer->setWVals(random(8, gates * H));
  layer->setUVals(random(H, gates * H));
  auto b = random(2, gates * H);
  if constexpr (requires { layer->setBVals(b); }) layer->setBVals(b); else layer->setBVals(b[0]);
  layer->reset();
  rows.push_back({name, [layer](const float *x) {
    Eigen::Matrix<float, 8, 1> in = Eigen::Map<const Eigen::Matrix<float, 8, 1>>(x);
    layer->forward(in);
    sink = layer->outs(0);
  }, {}});
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtneural", type=Path, help="a checkout of RTNeural")
    parser.add_argument("--eigen", type=Path, help="a checkout of Eigen 3")
    parser.add_argument("--cc", default="gcc -std=c99 -O3 -march=native")
    parser.add_argument("--cxx", default="g++ -std=c++20 -O3 -march=native")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        times = measured(Path(made), options)
    print(f"| µs a step, {options.cc} | C | C, int8 | RTNeural |\n|---|---|---|---|")
    for cell in CELLS:
        for H in UNITS:
            found = [times.get(f"{cell}{H}{kind}") for kind in ("", "_int8", "_rtneural")]
            shown = " | ".join("–" if t is None else f"{t:.3f}" for t in found)
            print(f"| {cell} {H} | {shown} |")


def measured(place: Path, options: argparse.Namespace) -> dict[str, float]:
    """Name → microseconds."""
    names = [exported(place, cell, H, int8) for cell in CELLS for H in UNITS for int8 in (0, 1)]
    rows = [f'  ours("{n}", {n}_init, {n}_step);' for n in names]
    includes, layers = [], ""
    headers = "\n".join(f'#include "{n}.h"' for n in names)
    if options.rtneural is not None:
        layers = RTNEURAL
        includes = [f"-I{options.rtneural}", f"-I{options.eigen}"]
        includes += ["-DRTNEURAL_USE_EIGEN=1", "-DRTNEURAL_NAMESPACE=RTNeural"]
        # Layers of 128 units are larger than what Eigen allows on a stack; these are on the heap.
        includes += ["-DRTNEURAL_DEFAULT_ALIGNMENT=32", "-DEIGEN_STACK_ALLOCATION_LIMIT=0", "-w"]
        rows += [
            f'  theirs<RTNeural::{cell.upper()}LayerT<float, 8, {H}>>("{cell}{H}_rtneural", '
            f"{3 + (cell == 'lstm')}, {H});"
            for cell in ("gru", "lstm")
            for H in UNITS
        ]
    parts = {"HEADERS": headers, "LAYERS": layers, "ROWS": "\n".join(rows), "ROUNDS": str(ROUNDS)}
    text = re.sub("@([A-Z]+)@", lambda m: parts[m[1]], DRIVER)
    (place / "driver.cpp").write_text(text)
    for n in names:
        subprocess.run([*options.cc.split(), "-c", f"{n}.c"], cwd=place, check=True)
    objects = [f"{n}.o" for n in names]
    command = [*options.cxx.split(), *includes, "driver.cpp", *objects, "-o", "driver", "-lm"]
    subprocess.run(command, cwd=place, check=True)
    done = subprocess.run([place / "driver"], capture_output=True, text=True, check=True)
    return {name: float(time) for name, time in map(str.split, done.stdout.splitlines())}


def exported(place: Path, cell: str, H: int, int8: int) -> str:
    torch.manual_seed(0)
    net = ClassifierNet(N_INPUTS, N_CLASSES, cell, H)
    graph, folded = describe(net)
    tensors = {n: t.detach().numpy() for n, t in {**net.state_dict(), **folded}.items()}
    name = f"{cell}{H}{'_int8' if int8 else ''}"
    export.export_network(export.Given(graph, tensors), place, name=name, int8=bool(int8))
    return name


if __name__ == "__main__":
    main()
