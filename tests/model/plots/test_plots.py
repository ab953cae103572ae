"""Pictures: what is in them, through matplotlib's own objects."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_hex
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from model.evaluation.promotion import decide
from model.plots import style
from model.plots.comparisons import plot_promotion, plot_replay
from model.plots.forecasts import Outlook, draw_outlook, plot_backtest, plot_forecasts, plot_outlooks
from model.plots.training import plot_confusion, plot_history
from model.training.forecasting import FittedForecaster
from model.training.loop import Epoch

START, HOUR = 1_704_067_200_000, 3_600_000
Exported = tuple[FittedForecaster, Path]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Figure]:
    """Draws a picture, and gives it as it was saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(plot: Callable[..., None], *arguments: Any) -> Figure:
        path = tmp_path / "picture.png"
        plot(*arguments, path)
        assert path.read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    return draw


def outlook(steps: int = 48, horizon: int = 12, **others: Any) -> Outlook:
    """A wave, and a forecast of it."""
    values = 100 + 10 * np.sin(np.arange(steps + horizon) * np.pi / 12)
    times = style.moments(START + np.arange(steps + horizon) * HOUR)
    ahead = values[steps:] + 1
    look = Outlook(
        title="pump-1",
        unit="pressure",
        times=times[:steps],
        values=values[:steps],
        ahead=times[steps:],
        forecast=ahead,
        bands={"90 %": (ahead - 5, ahead + 5)},
    )
    return replace(look, **others)


def panel_of(look: Outlook) -> Axes:
    panel = Figure().subplots()
    draw_outlook(panel, look)
    return panel


def lines(panel: Axes) -> dict[str, Any]:
    return dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))


def test_a_forecast_begins_where_history_ends_without_a_gap_and_is_named() -> None:
    panel = panel_of(look := outlook())
    shown = lines(panel)
    assert list(shown) == ["actual", "forecast", "90 % interval", "history ends"]
    ends, begins = (shown[name].get_xydata()[place] for name, place in (("actual", -1), ("forecast", 0)))
    assert ends.tolist() == begins.tolist()
    (border,) = set(shown["history ends"].get_xdata())
    assert border == look.times[-1] == style.moments(START + 47 * HOUR)
    assert ends[0] == date2num(border)  # type: ignore[no-untyped-call]
    band = shown["90 % interval"].get_paths()[0].get_extents()
    assert (band.x0, band.x1) == (ends[0], shown["forecast"].get_xydata()[-1, 0])
    assert (panel.get_title("left"), panel.get_xlabel(), panel.get_ylabel()) == ("pump-1", "time (UTC)", "pressure")
    assert [to_hex(shown[name].get_color()) for name in ("actual", "forecast")] == [style.ACTUAL, style.FORECAST]


def test_what_is_not_drawn_has_no_name_in_the_legend() -> None:
    unknown = np.full(12, np.nan)
    look = outlook()
    panel = panel_of(replace(look, bands={"99.9 %": (unknown, unknown), **look.bands}))
    assert [name for name in lines(panel) if "interval" in name] == ["90 % interval"]
    (color,) = lines(panel)["90 % interval"].get_facecolor()
    (alone,) = lines(panel_of(look))["90 % interval"].get_facecolor()
    assert same_color(color, alone), "of the widest interval that there is"


def test_what_came_goes_on_from_history_and_an_anomaly_is_marked() -> None:
    look = outlook()
    panel = panel_of(replace(look, came=look.forecast - 1, anomaly=2.5, naive=("naive (day)", look.forecast - 3)))
    actual: list[Any] = [line for line in panel.get_lines() if to_hex(line.get_color()) == style.ACTUAL]
    assert [len(line.get_xydata()) for line in actual] == [48, 13]
    assert actual[0].get_xydata()[-1].tolist() == actual[1].get_xydata()[0].tolist()
    shown = lines(panel)
    assert to_hex(shown["anomaly, score 2.5"].get_color()) == style.ANOMALY
    assert shown["anomaly, score 2.5"].get_xydata().tolist() == [actual[0].get_xydata()[-1].tolist()]
    assert (to_hex(shown["naive (day)"].get_color()), shown["naive (day)"].get_linestyle()) == (style.NAIVE, "--")


def test_a_naive_forecast_looks_and_is_called_naive() -> None:
    shown = lines(panel_of(outlook(is_naive=True)))
    assert list(shown) == ["actual", "naive forecast", "90 % interval (naive)", "history ends"]
    assert to_hex(shown["naive forecast"].get_color()) == style.NAIVE


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_part_of_a_page_is_empty(drawn: Callable[..., Figure], count: int) -> None:
    looks = [outlook(title="s0", bands={}), *(outlook(title=f"s{number}") for number in range(1, count))]
    figure = drawn(lambda path: plot_outlooks(looks, "pumps", path))
    assert [panel.get_title("left") for panel in figure.axes] == [look.title for look in looks]
    boxes = [panel.get_position() for panel in figure.axes]
    assert sum(box.width * box.height for box in boxes) > 0.5
    assert figure.get_suptitle() == "pumps"
    (legend,) = figure.legends
    assert ("90 % interval" in [text.get_text() for text in legend.get_texts()]) is (count > 1)


@given(st.integers(1, 60), st.integers(0, 60))
def test_any_forecast_can_be_drawn(horizon: int, steps: int) -> None:
    look = outlook(steps, horizon)
    panel = panel_of(replace(look, values=np.full(steps, np.nan), came=np.full(horizon, np.nan)))
    assert "forecast" in lines(panel)


def test_a_backtest_shows_errors_by_step_beside_its_forecasts(
    exported: Exported, wave_data: Any, drawn: Callable[..., Figure], tmp_path: Path
) -> None:
    fitted, ends = exported[0], exported[0].split.validation
    errors = {"Tidecast": [0.1] * 6, "naive (last)": [0.3] * 6, "naive (day)": [0.2] * 6}
    figure = drawn(lambda path: plot_backtest(fitted, wave_data, ends, errors, path))
    first, *others = figure.axes
    assert (first.get_xlabel(), first.get_ylabel()) == ("steps ahead (of 1h)", style.ERROR)
    assert list(lines(first)) == ["naive (day)", "naive (last)", "Tidecast"]
    assert len(others) == 3
    assert {name for name in lines(others[0]) if "interval" in name} == {"80 % interval", "90 % interval"}
    alone = drawn(lambda path: plot_backtest(fitted, wave_data, ends[:1], errors, path))
    assert len(alone.axes) == 2
    one = {name: values[:1] for name, values in errors.items()}
    bars: Any = drawn(lambda path: plot_backtest(fitted, wave_data, ends, one, path)).axes[0]
    assert [bar.get_width() for bar in bars.patches] == [0.1, 0.3, 0.2]
    assert bars.get_xlabel() == style.ERROR


def test_a_training_shows_the_actual_values_that_were_observed(
    exported: Exported, wave_data: Any, drawn: Callable[..., Figure]
) -> None:
    figure = drawn(lambda path: plot_forecasts(exported[0], wave_data, path))
    assert len(figure.axes) == 4
    assert figure.get_suptitle().startswith("waves: forecasts of value, 6 steps of 1h ahead")
    holed = replace(wave_data, observed=np.zeros_like(wave_data.observed))
    figure = drawn(lambda path: plot_forecasts(exported[0], holed, path))
    assert np.isnan(lines(figure.axes[0])["actual"].get_ydata()).all()


def losses(count: int) -> dict[str, Any]:
    """Those of a champion, and of a challenger that is a little better."""
    champion = 0.3 + 0.1 * np.sin(np.arange(count) / 80)
    return {"challenger": 0.985 * champion, "champion": champion, "naive (last)": 8 * champion}


def test_champion_and_challenger_are_told_apart_however_close(drawn: Callable[..., Figure]) -> None:
    given_losses, ts = losses(1500), START + np.arange(1500) * HOUR
    naive = {"naive (last)": given_losses["naive (last)"]}
    decision = decide(given_losses["challenger"], given_losses["champion"], naive, 24)
    figure = drawn(lambda path: plot_promotion(decision, ts, given_losses, "power against power/3", path))
    assert figure.get_suptitle() == "power against power/3: promoted"
    over_time, difference, gain = figure.axes
    assert {name: to_hex(line.get_color()) for name, line in lines(over_time).items()} == {
        "naive (last)": style.NAIVE,
        "champion": style.CHAMPION,
        "challenger": style.CHALLENGER,
    }
    assert over_time.get_yscale() == "log"
    assert list(lines(difference)) == ["challenger better"], "nobody else is, at any origin"
    assert difference.get_ylim()[1] < 0.01, "as large as the difference, not as the errors"
    assert "gain +1.5 %, 99 % sure" in gain.get_title("left")
    low, high = gain.get_xlim()
    assert low < 0 < 1 < 1.5 < high
    for panel in (over_time, difference):
        assert panel.get_xlabel() == "origin of the forecast (UTC)"


def test_an_undecided_comparison_has_lines_too(drawn: Callable[..., Figure]) -> None:
    few, ts = losses(30), START + np.arange(30) * HOUR
    decision = decide(few["challenger"], few["champion"], {"naive (last)": few["naive (last)"]}, 24)
    assert decision.blocks == 0
    over_time, _, gain = drawn(lambda path: plot_promotion(decision, ts, few, "a against a/1", path)).axes
    assert len(lines(over_time)["champion"].get_xydata()) > 20
    assert "bounds unknown" in gain.get_title("left")


def test_a_replay_shows_every_model_and_where_nothing_is_known_a_hole(drawn: Callable[..., Figure]) -> None:
    ts: Any = START + np.arange(120) * HOUR
    wave = losses(120)
    wave["champion"][40:80] = np.nan
    over_time = {"_m/1": wave["champion"], "m/2": wave["challenger"], "last-value": wave["naive (last)"]}
    by_step = {"_m/1": [0.2, 0.3], "m/2": [0.2, 0.29], "last-value": [0.9, 2.0]}
    figure = drawn(lambda path: plot_replay(ts, over_time, by_step, ["last-value"], "1h", "taxi", path))
    whole, against, steps = figure.axes
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["last-value", "_m/1", "m/2"]
    assert [np.isnan(line.get_ydata()).sum() for line in lines(whole).values()] == [0, 1, 0], "a break"
    assert "_m/1" in against.get_title("left")
    assert len(against.get_lines()) == 2, "the other model, and zero"
    assert steps.get_xlabel() == "steps ahead (of 1h)"
    alone = {"m/2": over_time["m/2"]}
    figure = drawn(lambda path: plot_replay(ts, alone, {"m/2": by_step["m/2"]}, [], None, "taxi", path))
    assert len(figure.axes) == 2
    assert figure.axes[0].get_yscale() == "linear"


def test_a_training_s_losses_say_which_epoch_was_the_best(drawn: Callable[..., Figure]) -> None:
    history = [
        Epoch(number=number, train_loss=1 / number, validation_loss=abs(number - 3) + 0.5, seconds=0.1)
        for number in range(1, 6)
    ]
    (panel,) = drawn(lambda path: plot_history(history, "nats a token", path)).axes
    assert list(lines(panel)) == ["training", "validation", "lowest, 0.5 after epoch 3"]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("epoch", "nats a token")


def test_a_confusion_matrix_names_axes_and_labels(drawn: Callable[..., Figure]) -> None:
    confusion = np.array([[8, 2], [1, 9]])
    panel, bar = drawn(lambda path: plot_confusion(confusion, ["ham", "a label much longer than others"], path)).axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("predicted label", "true label")
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["ham", "a label much longe.."]
    assert [text.get_text() for text in panel.texts] == ["8", "2", "1", "9"]
    assert bar.get_ylabel() == "share of the true label's texts"
    assert panel.figure.get_suptitle() == "85.0% of 20 held-out texts are right"
