"""Many drawn loops against Python: `python …/tests/loops/explore.py --programs 20000 --jobs 2`.

The program of a seed is the same in every run. Printed are the seed and text of each program that
differs, and how many programs, calls and native loops there were.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
IN_A_PROCESS = 200  # programs; then a new process, so that memory stays bounded


def tried(seeds: range) -> tuple[collections.Counter[str], list[str]]:
    """What happened to the programs of some seeds, and the differences."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import grammar
    import test_random_loops
    import torch

    from ostinato.loops.running import pace

    torch.set_num_threads(1)
    pace.MEASURES = False  # whether a scan is faster must not decide
    counts, found = collections.Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            rng = random.Random(seed)
            text, program = grammar.drawn(rng)
            differences, sites = test_random_loops.check(text, program, rng, Path(folder))
            counts.update(
                programs=1, calls=4, loops=len(sites), native=sum(s.native is True for s in sites)
            )
            if differences:
                found.append("\n".join([f"seed {seed}", *differences, text]))
    return counts, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    end, began = given.first + given.programs, time.monotonic()
    parts = [range(i, min(i + IN_A_PROCESS, end)) for i in range(given.first, end, IN_A_PROCESS)]
    total, differ = collections.Counter[str](), 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(given.jobs, maxtasksperchild=1) as pool:
        for counts, found in pool.imap_unordered(tried, parts, chunksize=1):
            total += counts
            differ += len(found)
            print(*found, sep="\n\n", end="\n" if found else "")
            print(f"{dict(total)}, {differ} differ, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
