"""`tidecast forecast`: from a file to a forecast in one command."""

import json
import re
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

Tidecast = Callable[..., subprocess.CompletedProcess[str]]
HOURS = np.arange(400)


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    """Eight hourly series, the last one short."""
    parts = [
        pl.DataFrame({"series": f"s{number}", "ts": 1_700_006_400_000 + HOURS[-count:] * 3_600_000, "value": wave})
        for number, count in enumerate([400] * 7 + [5])
        for wave in [np.sin(HOURS[-count:] * np.pi / 12) + number]
    ]
    pl.concat(parts).write_csv(tmp_path / "waves.csv")
    return tmp_path


def test_forecast_writes_a_table_a_plot_and_an_output_file(tidecast: Tidecast, waves: Path) -> None:
    done = tidecast(
        *("forecast", "--data", "waves.csv", "--horizon", 30, "--seq-len", 48),
        *("--budget", "2s", "--output", "ahead.csv", "--json"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"series": 8, "horizon": 30, "freq": "1h", "seq_len": 48, "output": "ahead.csv"}.items() <= found.items()
    ahead = pl.read_csv(waves / "ahead.csv")
    assert len(ahead) == 8 * 30
    assert dict(ahead.group_by("source").len().rows()) == {"model": 7 * 30, "naive": 30}
    assert (waves / found["plot"]).read_bytes().startswith(b"\x89PNG")
    assert "and 6 steps, 2 series more" in done.stdout
    assert "naive forecasts for 1 series shorter than 48 steps: s7" in done.stderr
    bounds = ["Tidecast-lo-90", "Tidecast-lo-80", "Tidecast-hi-80", "Tidecast-hi-90"]
    assert ahead.columns == ["unique_id", "ds", "Tidecast", "source", *bounds], "what is new comes last"
    assert ahead.select(pl.col("Tidecast").is_between("Tidecast-lo-80", "Tidecast-hi-80").all()).item()
    assert (found["levels"], found["without_interval"]) == ([80, 90], 0)


def test_a_single_series_is_shown_with_the_intervals_asked_for(tidecast: Tidecast, waves: Path) -> None:
    one = pl.read_csv(waves / "waves.csv").filter(series="s0")
    one.write_csv(waves / "one.csv")
    command = ("forecast", "--data", "one.csv", "--horizon", 6, "--arch", "linear", "--output", "ahead.csv", "--json")
    done = tidecast(*command, "--level", "50%, 97.5%")
    assert done.returncode == 0, done.stderr
    ahead = pl.read_csv(waves / "ahead.csv")
    low, high = ahead.row(0, named=True)["Tidecast-lo-50"], ahead.row(0, named=True)["Tidecast-hi-50"]
    heading, first = done.stdout.splitlines()[1:3]
    assert heading.split("  ")[-1].strip() == "97.5 %"
    shown = [float(part) for part in re.findall(r"(\S+) to (\S+)", first)[0]]
    assert shown == pytest.approx([low, high], rel=1e-4)
    bare = tidecast(*command, "--level", "none")
    assert json.loads(bare.stdout.splitlines()[-1])["levels"] == []
    assert pl.read_csv(waves / "ahead.csv").columns == ["unique_id", "ds", "Tidecast", "source"]
    for level, says in (
        ("0.9", "0.9 is not a percentage from 1 to 99.9, such as 90; did you mean 90?"),
        ("80 90", "'80 90' is neither percentages such as 80,90"),
    ):
        refused = tidecast(*command, "--level", level)
        assert refused.returncode == 78
        assert f"level: {says}" in refused.stderr


@pytest.mark.parametrize("horizon", [3, 24])
def test_a_lone_short_series_has_a_naive_forecast_labelled_so(tidecast: Tidecast, tmp_path: Path, horizon: int) -> None:
    rows = [f"2024-01-{day:02},{level}" for day, level in enumerate([5, 7, 6, 8, 9, 4, 6], 1)]
    (tmp_path / "seven.csv").write_text("\n".join(["ds,y", *rows]))
    done = tidecast("forecast", "--data", "seven.csv", "--horizon", horizon, "--output", "ahead.csv", "--json")
    assert done.returncode == 0, done.stderr
    assert "naive forecasts only: too few windows" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["naive"] == 1
    ahead = pl.read_csv(tmp_path / "ahead.csv")
    assert ahead["source"].to_list() == ["naive"] * horizon
    assert ahead["Tidecast"].to_list()[:3] == [5, 7, 6], "those of a week before"
    assert ahead["Tidecast-hi-80"].null_count() == max(0, horizon - 3), "four naive errors at steps 1 to 3, fewer later"
    assert ahead["Tidecast-hi-90"].null_count() == horizon
    assert f"{horizon} forecasts of 1 series have no interval: too few" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["without_interval"] == horizon


def test_future_covariates_are_read_from_the_last_rows(tidecast: Tidecast, tmp_path: Path) -> None:
    heat = np.random.default_rng(0).normal(20, 5, 400).round(3)
    load = [*map(str, (2 * heat[:-6]).round(3)), *[""] * 6]
    lines = [f"{1_700_006_400_000 + hour * 3_600_000},{load[hour]},{heat[hour]}" for hour in HOURS]
    told = ("forecast", "--data", "heated.csv", "--features", "load,heat", "--horizon", 6, "--seq-len", 24)
    (tmp_path / "heated.csv").write_text("\n".join(["ts,load,heat", *lines]))
    done = tidecast(*told, "--known", "heat", "--arch", "segment", "--epochs", 15, "--output", "ahead.csv")
    assert done.returncode == 0, done.stderr
    ahead = pl.read_csv(tmp_path / "ahead.csv")["Tidecast"].to_numpy()
    assert np.abs(ahead - 2 * heat[-6:]).mean() < 5
    (tmp_path / "heated.csv").write_text("\n".join(["ts,load,heat", *lines[:-1]]))
    short = tidecast(*told, "--known", "heat", "--arch", "naive")
    assert short.returncode == 65
    assert (
        "known: heat of 'heated' must be given for 6 steps of 1h ahead, and is missing at 2023-12-01 15:00"
        in short.stderr
    )


def test_an_unsupported_output_format_is_rejected_before_training(tidecast: Tidecast, waves: Path) -> None:
    done = tidecast("forecast", "--data", "waves.csv", "--output", "ahead.xlsx")
    assert done.returncode == 78
    assert "output: ahead.xlsx ends in none of .csv, .parquet, .jsonl" in done.stderr


def test_a_large_level_is_forecast_and_shown_with_its_day(tidecast: Tidecast, tmp_path: Path) -> None:
    day = 40 * np.sin(HOURS * np.pi / 12)
    rows = [f"{1_700_006_400_000 + hour * 3_600_000},{3_000_000_100 + day[hour]:.1f}" for hour in HOURS]
    (tmp_path / "meter.csv").write_text("\n".join(["ds,y", *rows]))
    done = tidecast(
        *("forecast", "--data", "meter.csv", "--horizon", 24, "--seq-len", 48),
        *("--arch", "linear", "--output", "ahead.csv"),
    )
    ahead = pl.read_csv(tmp_path / "ahead.csv")["Tidecast"].to_numpy()
    expected = 3_000_000_100 + 40 * np.sin((HOURS[-1] + 1 + np.arange(24)) * np.pi / 12)
    np.testing.assert_allclose(ahead - 3e9, expected - 3e9, atol=1)
    assert f"{ahead.max():,.0f}"[:-1] in done.stdout


def test_one_spike_is_said_and_left_out_of_account_unless_asked(tidecast: Tidecast, tmp_path: Path) -> None:
    wave = 100 + np.sin(HOURS * np.pi / 12)
    wave[380] = 1e9
    rows = [
        f"{1_700_006_400_000 + hour * 3_600_000},{name},{y}"
        for hour in HOURS
        for name, y in (("odd", wave[hour]), ("even", 100 + np.cos(hour * np.pi / 12)))
    ]
    (tmp_path / "odd.csv").write_text("\n".join(["ts,series,value", *rows]))
    command = ("forecast", "--data", "odd.csv", "--horizon", 6, "--seq-len", 48, "--arch", "linear")
    done = tidecast(*command, "--output", "ahead.csv", "--json")
    ahead = pl.read_csv(tmp_path / "ahead.csv").filter(pl.col("unique_id") == "odd")["Tidecast"]
    assert ahead.is_between(95, 105).all()
    assert json.loads(done.stdout.splitlines()[-1])["winsorised"] == {"odd": 1}
    assert "1 value far from all others of its series counts as the nearest of these: 1 in odd" in done.stderr
    kept = tidecast(*command, "--no-winsorise", "--json")
    found = json.loads(kept.stdout.splitlines()[-1])
    assert found["winsorised"] == {}
    assert found["most_of_the_error"]["odd"] > 0.9
    assert "most of the error is of few series: odd: 100% of the squared error" in kept.stderr


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_times_of_a_zone_come_out_as_its_clock_shows_them(tidecast: Tidecast, tmp_path: Path, suffix: str) -> None:
    clock = pl.datetime_range(datetime(2026, 3, 20), datetime(2026, 3, 29, 1), "1h", eager=True)
    rows = [f"{ds:%Y-%m-%d %H:%M},{place % 24}" for place, ds in enumerate(clock)]
    (tmp_path / "meter.csv").write_text("\n".join(["ds,y", *rows]))
    done = tidecast(
        *("forecast", "--data", "meter.csv", "--horizon", 3, "--arch", "naive", "--timezone", "Europe/Berlin"),
        *("--output", f"ahead.{suffix}", "--json"),
    )
    assert done.returncode == 0, done.stderr
    expected = [f"2026-03-29T0{hour}:00:00+02:00" for hour in (3, 4, 5)]
    if suffix == "parquet":
        ahead = pl.read_parquet(tmp_path / "ahead.parquet")["ds"]
        assert [time.isoformat() for time in ahead] == expected
    else:
        read = pl.read_ndjson if suffix == "jsonl" else pl.read_csv
        assert read(tmp_path / f"ahead.{suffix}")["ds"].to_list() == expected
    assert json.loads(done.stdout.splitlines()[-1])["timezone"] == "Europe/Berlin"
    assert "time, Europe/Berlin" in done.stdout
    assert "2026-03-29 03:00+02:00" in done.stdout


@pytest.mark.parametrize(
    ("freq", "start", "hour", "told", "expected"),
    [
        ("1d", "2026-01-01", 0, True, ["2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"]),
        ("1d", "2026-01-01", 6, False, ["2026-03-29T06:00:00+02:00", "2026-03-30T06:00:00+02:00"]),
        ("1mo", "2020-01-01", 0, True, ["2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00"]),
    ],
)
def test_days_and_months_of_a_zone_stay_at_its_clocks_time(
    tidecast: Tidecast, tmp_path: Path, freq: str, start: str, hour: int, told: bool, expected: list[str]
) -> None:
    first, last = datetime.fromisoformat(start), datetime(2026, 3, 28) if freq == "1d" else datetime(2026, 2, 1)
    clock = pl.datetime_range(first, last, freq, eager=True).dt.offset_by(f"{hour}h")
    texts = clock.dt.replace_time_zone("Europe/Berlin").dt.strftime("%Y-%m-%dT%H:%M:%S" + ("%:z" if told else ""))
    (tmp_path / "days.csv").write_text("\n".join(["ds,y", *(f"{ts},{place % 7}" for place, ts in enumerate(texts))]))
    command = ("forecast", "--data", "days.csv", "--horizon", 2, "--arch", "naive", "--output", "ahead.csv")
    done = tidecast(*command, "--timezone", "Europe/Berlin")
    assert done.returncode == 0, done.stderr
    assert pl.read_csv(tmp_path / "ahead.csv")["ds"].to_list() == expected


def test_a_weekday_without_values_is_said_and_noted(tidecast: Tidecast, tmp_path: Path) -> None:
    days = pl.date_range(datetime(2024, 1, 1), datetime(2024, 5, 31), eager=True)
    rows = [f"{day},{day.weekday()}" for day in days if day.weekday() < 6]
    (tmp_path / "shop.csv").write_text("\n".join(["ds,y", *rows]))
    done = tidecast("forecast", "--data", "shop.csv", "--horizon", 7, "--arch", "naive", "--json")
    assert done.returncode == 0, done.stderr
    note = "no values on Sundays: they are gaps; forecasts are for every day: leave those there out"
    assert done.stderr.count(note) == 1
    assert note in json.loads(done.stdout.splitlines()[-1])["notes"]
