"""Write trips.csv and new_trips.csv, the sample files of docs/first_file.md: made up, by a seed.

A trip is on foot, by bike or by bus. Each rider has a pace of their own, each trip a road and some
noise, so that speeds overlap. A bus stops for longer than a bike does; a bike slows down in turns;
and all begin and end at rest. Run it beside the files:

    python make_trips.py
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

MODES = {"walk": (1.8, 0.6), "bike": (4.0, 1.3), "bus": (5.0, 1.8)}  # mean speed and noise, m/s
EVERY = 10  # seconds between two rows
HEADER = ("trip", "rider", "time", "speed", "turn", "mode")


def trip(draw: random.Random, mode: str, pace: float) -> list[tuple[int, float, float]]:
    """(time, speed, turn) of each row: seconds, m/s and degrees."""
    mean, noise = MODES[mode]
    mean *= pace * draw.uniform(0.65, 1.35)
    rows, standing, n = [], 0, draw.randint(8, 20)
    for step in range(n):
        turn = draw.gauss(0, 25 if mode == "walk" else 15)
        speed = max(0.0, draw.gauss(mean, noise) - (mode == "bike") * abs(turn) / 20)
        if not standing and draw.random() < 0.12:
            standing = 3 if mode == "bus" else 1  # a stop, or a red light
        if standing or step in (0, n - 1):
            speed, standing = draw.uniform(0, 0.4), max(0, standing - 1)
        rows.append((step * EVERY, round(speed, 2), round(turn, 1)))
    return rows


def write(path: Path, riders: range, trips: int, draw: random.Random, labelled: bool) -> None:
    """Write the trips of some riders, with or without the column of the label."""
    paces = {rider: draw.uniform(0.75, 1.25) for rider in riders}
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(HEADER if labelled else HEADER[:-1])
        for number in range(1, trips + 1):
            rider, mode = draw.choice(riders), draw.choice(list(MODES))
            for row in trip(draw, mode, paces[rider]):
                out.writerow([f"t{number}", f"r{rider}", *row, *([mode] if labelled else [])])


def main() -> None:
    folder, draw = Path(__file__).parent, random.Random(7)
    write(folder / "trips.csv", range(1, 26), 200, draw, labelled=True)
    write(folder / "new_trips.csv", range(26, 30), 6, draw, labelled=False)


if __name__ == "__main__":
    main()
