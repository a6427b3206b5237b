"""Rows out of order are sorted by their dates, whatever the column is called, or refused."""

from __future__ import annotations

import datetime as dt
import random

import pytest
from task_files import QUICK

DAYS = [dt.date(2024, 1, 1) + dt.timedelta(i) for i in range(48)]
WRITTEN = {
    "2024-01-31": lambda day: day.isoformat(),
    "31.01.2024": lambda day: day.strftime("%d.%m.%Y"),
    "31/01/2024": lambda day: day.strftime("%d/%m/%Y"),
    "20240131": lambda day: day.strftime("%Y%m%d"),
    "seconds": lambda day: str(1_700_000_000 + 86_400 * DAYS.index(day)),
    "milliseconds": lambda day: str(1000 * (1_700_000_000 + 86_400 * DAYS.index(day))),
    "2024-01": lambda day: f"{2020 + DAYS.index(day) // 12}-{DAYS.index(day) % 12 + 1:02d}",
    "Q1 2024": lambda day: f"Q{DAYS.index(day) % 4 + 1} {2000 + DAYS.index(day) // 4}",
    "years": lambda day: str(1960 + DAYS.index(day)),
}
NAMES = ["Datum", "Fecha", "ds", "period", "day_of_sale"]
OF_MONTHS = {"2024-01", "Q1 2024"}  # which are no dates
FORECAST = ("--forecast", "sales", "--horizon", 3)
CLASSIFY = ("--classify", "kind", "--id", "shop", "--features", "sales")
TAG = ("--tag", "mood", "--id", "shop", "--features", "sales")


def rows(write, shops=("a",), order=1) -> list[str]:
    """A line for each day of each shop: shop, day, another date, sales, mood, kind."""
    drawn = random.Random(0)
    return [
        f"{shop},{write(day)},1999-12-31,{drawn.random():.3f},{'ab'[day.day % 2]},k{i % 2}"
        for i, shop in enumerate(shops)
        for day in DAYS[::order]
    ]


@pytest.fixture
def asked(ostinato, tmp_path):
    def ask(name, lines, *flags):
        file = tmp_path / "data.csv"
        file.write_text("\n".join([f"shop,{name},opened,sales,mood,kind", *lines]) + "\n")
        return ostinato("train", file, *flags, *QUICK, "--dry-run")

    return ask


def understood(done) -> str:
    """The dry run without its estimate of the time."""
    assert done.code == 0, done.err
    return done.out.partition("\n  time")[0]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_forecast_of_newest_first_is_sorted(asked, written):
    name = NAMES[list(WRITTEN).index(written) % len(NAMES)]
    done = asked(name, rows(WRITTEN[written], order=-1), *FORECAST)
    wanted = asked(name, rows(WRITTEN[written]), *FORECAST, "--time", name)
    if written in OF_MONTHS:
        assert done.code == 2 and "backwards in time" in done.err and f"'{name}'" in done.err
        return
    assert f"read as: sorted by {name}" in done.err and "sorted" not in wanted.err
    assert understood(done) == understood(wanted)


@pytest.mark.parametrize("written", WRITTEN)
def test_shops_mixed_with_the_newest_rows_first_are_refused(asked, written):
    """Without --id they would be one series, forecast backwards."""
    lines = rows(WRITTEN[written], ["north", "south"], order=-1)
    mixed = [line for i in range(len(DAYS)) for line in lines[i :: len(DAYS)]]
    done = asked("Datum", mixed, *FORECAST)
    assert done.code == 2 and "column 'Datum'" in done.err
    assert "backwards in time" in done.err or "--id" in done.err
    assert asked("Datum", mixed[::-1], *FORECAST, "--id", "shop", "--sort").code == 0


@pytest.mark.parametrize("flags", [FORECAST + CLASSIFY[2:4], CLASSIFY, TAG], ids=lambda f: f[0])
def test_every_task_looks_at_the_dates(asked, flags):
    shops = [f"s{i}" for i in range(10, 22)]
    wanted = asked("Datum", rows(WRITTEN["2024-01-31"], shops), *flags, "--time", "Datum")
    backwards = rows(WRITTEN["2024-01-31"], shops, order=-1)
    done = asked("Datum", backwards, *flags)
    assert "read as: sorted by Datum" in done.err and understood(done) == understood(wanted)
    refused = asked("Datum", backwards, *flags, "--no-sort")
    assert refused.code == 2 and "backwards in time" in refused.err and "'Datum'" in refused.err
    assert understood(asked("Datum", backwards, *flags, "--sort")) == understood(wanted)


def test_rows_in_any_order_are_sorted(asked):
    lines = rows(WRITTEN["2024-01-31"])
    wanted = asked("Datum", lines, *FORECAST, "--time", "Datum")
    random.Random(1).shuffle(lines)
    done = asked("Datum", lines, *FORECAST)
    assert "read as: sorted by Datum" in done.err and understood(done) == understood(wanted)


def test_shops_one_after_the_other_are_not_mixed(asked):
    """Their dates differ, so that sorting would mix them; the column of shops is named."""
    shops = {"north": "08:00", "south": "09:00"}
    lines = [
        line
        for shop, time in shops.items()
        for line in rows(lambda day, time=time: f"{day} {time}", [shop])
    ]
    done = asked("Datum", lines, *FORECAST)
    assert done.code == 2 and "(--id shop)" in done.err
    assert asked("Datum", lines, *FORECAST, "--id", "shop").code == 0


def test_check_finds_it_too(ostinato, tmp_path):
    file = tmp_path / "data.csv"
    lines = rows(WRITTEN["2024-01-31"], order=-1)
    file.write_text("\n".join(["shop,Fecha,opened,sales,mood,kind", *lines]) + "\n")
    assert "read as: sorted by Fecha" in ostinato("check", file, "--forecast", "sales").err


def test_dates_that_are_no_times_are_left_alone(asked):
    """A day that is the same for a sequence, days that come twice, numbers that count down,
    or the days at which the rows of sequences to classify were written."""
    shops = [f"s{i}" for i in range(12)]
    same = [line.replace(line.split(",")[1], "2024-03-01") for line in rows(str, shops)]
    twice = rows(lambda day: DAYS[DAYS.index(day) // 2].isoformat(), shops)
    jumbled = rows(lambda day: DAYS[DAYS.index(day) * 5 % 48].isoformat(), shops)
    numbers = rows(lambda day: str(100 - DAYS.index(day)), shops)  # a countdown is no time
    for lines in (same, twice, jumbled, numbers):
        done = asked("noted", lines, *CLASSIFY)
        assert done.code == 0, done.err
