"""What the page's API answers, over a log with all that a service writes."""

import time

import numpy as np
import pytest
from dashboards import HORIZON, HOSTILE, MINUTE, START, STEPS, Page, scores, value

from deploy.grading.totals import Totals
from pipeline.formats.scores import decode_scores

LAST = START + (STEPS - 1) * MINUTE


def test_the_overview_says_what_is_shown(shown: Page) -> None:
    overview = shown.get("overview")
    assert overview["task"] == "forecasts"
    assert (overview["topic"], overview["output"], overview["group"]) == (
        "tides",
        "tides-forecasts",
        "tidecast-tides-m",
    )
    assert overview["topics"]["dead_letters"] == "tidecast-tides-m-dead-letters"
    assert overview["topics"]["shadow"] is None
    assert overview["series"] == 3
    assert overview["models"] == ["tides/1", "tides/2"]
    assert overview["registry"] is False
    assert overview["log_error"] is None


def test_the_fleet_has_the_worst_skill_first(shown: Page) -> None:
    fleet = shown.get("fleet")
    assert (fleet["total"], fleet["matching"]) == (3, 3)
    assert [row["series"] for row in fleet["rows"]] == ["bad", HOSTILE, "good"]
    assert [row["skill"] for row in fleet["rows"]] == pytest.approx([-0.5, 0.5, 0.75])
    row = fleet["rows"][0]
    assert (row["target"], row["ts"], row["value"], row["step"]) == ("level", LAST, value(1, STEPS - 1), MINUTE)
    assert (row["mae"], row["naive_mae"], row["coverage"]) == pytest.approx((3.0, 2.0, 0.9))
    assert row["width"] == pytest.approx(6 / 2)
    assert row["model"] == "tides/2"
    assert row["alert"] == {
        "ts": START + 14 * MINUTE, "since": START + 12 * MINUTE, "until": START + 14 * MINUTE, "kind": "spike",
        "phase": "end", "text": "bad: over", "open": False,
    }  # fmt: skip
    assert row["spark"] == [value(1, step) for step in range(STEPS)]
    assert [row["silent"] for row in fleet["rows"]] == [False, False, True]


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"sort": "name"}, [HOSTILE, "bad", "good"]),
        ({"sort": "name", "desc": 1}, ["good", "bad", HOSTILE]),
        ({"sort": "alert"}, ["good", "bad", HOSTILE]),
        ({"q": "OO"}, ["good"]),
        ({"q": "<img"}, [HOSTILE]),
        ({"offset": 1, "limit": 1}, [HOSTILE]),
        ({"desc": 1}, ["good", HOSTILE, "bad"]),
    ],
)
def test_the_fleet_is_searched_and_sorted(shown: Page, parameters: dict[str, object], names: list[str]) -> None:
    assert [row["series"] for row in shown.get("fleet", **parameters)["rows"]] == names


def test_skill_since_a_time_is_of_the_buckets_from_then_on(shown: Page) -> None:
    rows = shown.get("fleet", since=START + 20 * MINUTE)["rows"]
    assert [row["mae"] for row in rows] == pytest.approx([3.0, 1.0, 0.5])
    nothing = shown.get("fleet", since=START + 60 * MINUTE)["rows"]
    assert [row["skill"] for row in nothing] == [None] * 3


def test_a_series_has_its_values_forecast_findings_and_scores(shown: Page) -> None:
    series = shown.get("series", series="bad")
    assert series["values"] == {
        "ts": [START + step * MINUTE for step in range(STEPS)],
        "value": [value(1, step) for step in range(STEPS)],
    }
    made = series["forecast"]
    assert made["times"] == [LAST + k * MINUTE for k in range(1, HORIZON + 1)]
    assert made["forecast"] == [value(1, STEPS - 1 + k) + 1 for k in range(1, HORIZON + 1)]
    assert made["lower"] == [each - 3 for each in made["forecast"]]
    assert (made["model"], made["source"], made["coverage"]) == ("tides/2", "model", 0.9)
    assert series["anomalies"] == {"ts": [START + 12 * MINUTE], "score": [2.5]}
    (alert,) = series["alerts"]
    assert (alert["kind"], alert["since"], alert["until"]) == ("spike", START + 12 * MINUTE, START + 14 * MINUTE)
    assert series["swaps"] == [{"ts": START + 20 * MINUTE, "from": "tides/1", "to": "tides/2"}]
    assert series["history"] == {"from": START, "to": LAST, "forecasts": STEPS, "left_out": None}


def test_scores_are_those_that_tidecast_score_shows(shown: Page) -> None:
    totals = Totals()
    for part in range(3):
        totals.add(decode_scores(scores(1, START + part * 10 * MINUTE, f"tides/{1 + part // 2}", 3.0)))
    (overall,) = totals.rows("series")
    shown_scores = shown.get("series", series="bad")["scores"]
    for name in ("count", "mae", "naive_mae", "skill", "coverage", "width", "winkler", "unscored", "since", "until"):
        assert shown_scores["overall"][name] == pytest.approx(getattr(overall, name)), name
    assert [(row["step"], row["count"]) for row in shown_scores["by_step"]] == [(1, 30), (4, 30)]
    assert [(row["model"], row["count"]) for row in shown_scores["by_model"]] == [("tides/1", 40), ("tides/2", 20)]


def test_a_series_scores_since_a_time_are_those_of_the_fleet(shown: Page) -> None:
    since = START + 20 * MINUTE
    (row,) = shown.get("fleet", q="bad", since=since)["rows"]
    found = shown.get("series", series="bad", since=since)
    assert found["values"]["ts"][0] == START
    assert found["scores"]["overall"]["count"] == 20
    assert {name: found["scores"]["overall"][name] for name in ("skill", "mae")} == {
        name: row[name] for name in ("skill", "mae")
    }
    assert [(each["model"], each["count"]) for each in found["scores"]["by_model"]] == [("tides/2", 20)]
    assert shown.get("series", series="bad", since=START + 60 * MINUTE)["scores"]["overall"] is None


def test_findings_that_are_open_are_listed(shown: Page) -> None:
    found = shown.get("alerts", open=1)
    assert found["total"] == 1
    (row,) = found["rows"]
    assert (row["series"], row["kind"], row["since"], row["text"]) == (
        *("good", "gap", START + 12 * MINUTE, "good: no value"),
    )
    assert shown.get("service")["open_alerts"] == 1


def test_times_far_off_the_clock_are_said(shown: Page) -> None:
    offset = shown.get("overview")["event_time_offset_s"]
    assert offset == pytest.approx(LAST / 1000 - time.time(), abs=120)


def test_forecasts_of_k_steps_ahead_lie_at_the_times_that_they_were_for(shown: Page) -> None:
    ahead = shown.get("ahead", series="good", k=3)
    assert ahead["made"] == [START + step * MINUTE for step in range(STEPS)]
    assert ahead["ts"] == [made + 3 * MINUTE for made in ahead["made"]]
    assert ahead["forecast"] == [value(0, step + 3) + 1 for step in range(STEPS)]
    assert set(np.subtract(ahead["upper"], ahead["lower"])) == {6.0}
    assert [ahead["model"][0], ahead["model"][-1]] == ["tides/1", "tides/2"]
    part = shown.get("ahead", series="good", k=3, from_=START + 10 * MINUTE, to=START + 12 * MINUTE)
    assert {START + each * MINUTE for each in (10, 11, 12)} <= set(part["ts"])
    assert len(part["ts"]) <= 4
    assert shown.get("ahead", series="good", k=HORIZON + 1)["ts"] == []


def test_a_forecast_from_any_point_tells_how_to_reproduce_it(shown: Page) -> None:
    origin = shown.get("origin", series="good", ts=START + 5 * MINUTE + 100)
    assert origin["ts"] == START + 5 * MINUTE
    assert origin["position"] == {"topic": "tides-forecasts", "partition": 0, "offset": 15}
    assert origin["explain"].startswith("tidecast explain tides-forecasts 0 15 --bootstrap sqlite:")
    assert origin["sha256"] == "ab" * 32
    assert origin["actual"] == [value(0, step) for step in range(6, 6 + HORIZON)]
    assert origin["error"] == [-1.0] * HORIZON, "too high, as in what was forecast for a time"
    last = shown.get("origin", series="good", ts=LAST - MINUTE)
    assert (last["actual"][0], last["actual"][1:]) == (value(0, STEPS - 1), [None] * (HORIZON - 1))
    assert last["error"][1:] == [None] * (HORIZON - 1)
    assert shown.ask(f"/api/origin?series=good&ts={START - 1}").status == 404


def test_what_was_forecast_for_a_time_and_how_far_off_it_was(shown: Page) -> None:
    target = shown.get("target", series="good", ts=START + 10 * MINUTE + 20_000)
    assert (target["ts"], target["actual"]) == (START + 10 * MINUTE, value(0, 10))
    assert [(row["k"], row["made"]) for row in target["rows"]] == [
        (k, START + (10 - k) * MINUTE) for k in range(1, HORIZON + 1)
    ]
    assert {row["error"] for row in target["rows"]} == {-1.0}, "too high"
    assert {row["inside"] for row in target["rows"]} == {True}
    to_come = shown.get("target", series="good", ts=LAST + 2 * MINUTE)
    assert (to_come["actual"], len(to_come["rows"])) == (None, HORIZON - 1)


def test_models_have_their_scores_and_swaps(shown: Page) -> None:
    models = shown.get("models")
    assert (models["registry"]["state"], models["registry"]["uri"]) == ("none", None)
    assert models["answers"] == [
        {"model": "tides/1", "count": 60, "since": START, "until": START + 19 * MINUTE},
        {"model": "tides/2", "count": 30, "since": START + 20 * MINUTE, "until": LAST},
    ]
    assert models["last_swap"]["verdict"] == "too early"
    assert [row["model"] for row in models["live"]] == ["tides/1", "tides/2"]
    assert models["swaps"] == [{"ts": START + 20 * MINUTE, "from": "tides/1", "to": "tides/2"}]
    first = models["skill_over_time"][0]
    assert (first["model"], first["ts"]) == ("tides/1", [START, START + 10 * MINUTE])
    assert first["count"] == [60, 60]


def test_the_service_has_its_lag_checkpoints_and_dead_letters(shown: Page) -> None:
    service = shown.get("service")
    assert service["lag"] == {"total": 30, "by_partition": {"0": 30}}
    assert [(each["partition"], each["offset"], each["series"]) for each in service["checkpoints"]] == [(0, 60, 3)]
    letters = service["dead_letters"]
    assert (letters["total"], letters["by_reason"]) == (2, {"malformed_json": 1, "bad_encoding": 1})
    assert letters["reasons"][1] == {
        "reason": "malformed_json", "count": 1, "first_ts": START, "newest_ts": START, "recent": 0,
    }  # fmt: skip
    assert {each["kind"] for each in service["topics"] if each["exists"]} == {
        *("input", "output", "scores", "alerts", "dead_letters", "state"),
    }
    assert service["members"] is None  # the embedded log does not know them


def test_what_others_wrote_stays_text(shown: Page) -> None:
    answer = shown.ask("/api/dead-letters?reason=malformed_json")
    assert answer.headers["content-type"] == "application/json"
    assert b"\x1b" not in answer.raw
    (row,) = answer.body["rows"]
    assert row["value"] == '\x1b[31m{"value": <script>'
    assert row["letter"] == "tidecast-tides-m-dead-letters/0/0"
    assert "no JSON" in row["advice"]
    assert row["command"].startswith("tidecast dead-letters tidecast-tides-m-dead-letters --reason malformed_json")
    assert {row["reason"] for row in shown.get("dead-letters")["rows"]} == {"malformed_json", "bad_encoding"}
    assert shown.get("series", series=HOSTILE)["series"] == HOSTILE


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/api/series?series=none", 404, "no series 'none'"),
        ("/api/series", 400, "series"),
        ("/api/series?series=good&target=other", 404, "target"),
        ("/api/ahead?series=good&k=many", 400, "k: "),
        ("/api/fleet?sort=length", 400, "sort: one of"),
        ("/api/fleet?limit=9999999", 400, "limit"),
        ("/api/target?series=good", 400, "ts"),
        ("/api/fleet?since=" + "9" * 30, 400, "since"),
        ("/api/fleet?q=" + "x" * 600, 400, "characters"),
        ("/api/fleet?q=" + "x" * 5000, 400, "bytes"),
        ("/api/stream?view=other", 400, "view"),
        ("/api/stream?view=series", 400, "series"),
        ("/api/other", 404, "address"),
        ("/../../etc/passwd", 404, "address"),
    ],
)
def test_what_can_t_be_asked_is_said_in_a_line(shown: Page, path: str, status: int, text: str) -> None:
    answer = shown.ask(path)
    assert answer.status == status
    assert text in answer.body["error"]
    assert "\n" not in answer.body["error"]
