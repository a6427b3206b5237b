"""`python -m benchmarks.whole`: the notebook's experiment in PyTorch's own layers, as a process.

Its counterpart is `ostinato train mnist`: the same data, weights, batches and update, 5,000
iterations, then the accuracy on the test part. The thread settings are PyTorch's.
"""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F

from benchmarks.iteration_peers import torch_script
from benchmarks.notebook import Task

ITERATIONS = 5000


def main(iterations: int) -> None:
    task = Task()
    net, iterate = torch_script(task)
    begin = time.perf_counter()
    for _ in range(iterations):
        iterate()
    spent = time.perf_counter() - begin
    X, y = (torch.from_numpy(a) for a in task.test)
    with torch.no_grad():
        logits = net(X)
    accuracy = (logits.argmax(1) == y).double().mean().item()
    loss = F.cross_entropy(logits, y).item()
    ms = 1e3 * spent / iterations
    print(f"accuracy {accuracy:.4f}   loss {loss:.4f}   {ms:.2f} ms an iteration")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ITERATIONS)
