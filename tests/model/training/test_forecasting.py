from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from model.card import InputSpec, OutputSpec
from model.evaluation.baselines import baselines
from model.evaluation.intervals import window_scales
from model.evaluation.metrics import mse, series_scale
from model.evaluation.splits import targets
from model.networks.forecast import build_network
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import FittedForecaster, fit, forecast
from model.training.loop import choose_device, supports_bf16
from model.windows import WindowData
from pipeline.windows.grid import WindowConfig
from pipeline.windows.sliding import sliding_windows

MakeData = Callable[..., WindowData]
Arch = Literal["lstm", "segment"]

INPUTS, OUTPUTS = InputSpec(seq_len=24, freq="1h"), OutputSpec(horizon=6)
QUICK = ForecastConfig(arch="segment", hidden=8, epochs=3, seed=5)


def train(data: WindowData, config: ForecastConfig = QUICK, **given: Any) -> FittedForecaster:
    return fit(data, INPUTS, OUTPUTS, config, "waves", **given)


def weights(fitted: FittedForecaster) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in fitted.model.state_dict().items()}


@pytest.mark.parametrize("arch", ["lstm", "segment"])
def test_the_same_seed_gives_the_same_weights(arch: Arch, wave_data: Any) -> None:
    config = replace(QUICK, arch=arch, layers=2)
    state = torch.get_rng_state()
    first = train(wave_data, config)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert weights(train(wave_data, config)) == weights(first)
    assert weights(train(wave_data, replace(config, seed=6))) != weights(first)


def test_forecaster_beats_the_naive_on_a_daily_wave(wave_data: Any) -> None:
    seen: list[tuple[int, int, int]] = []
    fitted = train(
        wave_data,
        ForecastConfig(arch="segment", hidden=32, epochs=20),
        on_step=lambda done, total, history: seen.append((done, total, len(history))),
    )
    assert [epoch.number for epoch in fitted.history] == list(range(1, len(fitted.history) + 1))
    steps = seen[-1][1] // 20
    assert seen[-1] == (steps * len(fitted.history), steps * 20, len(fitted.history))
    assert fitted.card.metrics["validation_mse"] < fitted.naive_mse


def test_epoch_samples_many_windows(wave_data: Any) -> None:
    seen: list[int] = []
    train(
        wave_data, replace(QUICK, epochs=2, epoch_windows=100), on_step=lambda done, total, history: seen.append(total)
    )
    assert set(seen) == {2 * 2}


def test_training_keeps_to_its_time_budget(wave_data: Any) -> None:
    endless = replace(QUICK, epochs=100_000, patience=100_000, seconds=0.5)
    assert 0 < len(train(wave_data, endless).history) < 100_000
    blend = train(wave_data, replace(endless, arch="blend", seconds=1e-9))
    assert [each["arch"] for each in blend.card.members].count("segment") <= 1
    assert len(blend.history) <= 1 + 2 + 2


def test_blend_beats_the_mean_error_of_its_members_and_exports_to_one_file(wave_data: Any) -> None:
    inputs = InputSpec(seq_len=96, freq="1h")
    longer = replace(wave_data, seq_len=96, ends=wave_data.ends[wave_data.step[wave_data.ends] >= 95])
    fitted = fit(longer, inputs, OUTPUTS, replace(QUICK, arch="blend", epochs=2), "waves")
    lstms, linears = fitted.history[: 2 * 6], fitted.history[2 * 6 :]
    assert len(linears) == 3 + 2
    alone = [epoch.validation_loss for epoch in lstms[1::2] + linears]
    assert fitted.card.metrics["validation_mse"] < np.mean(alone)
    assert [epoch.number for epoch in fitted.history] == list(range(1, 18))
    again = build_network(fitted.card).eval()
    again.load_state_dict(fitted.model.state_dict())
    ends = fitted.split.validation[:5]
    assert forecast(again, longer, ends).tobytes() == forecast(fitted.model, longer, ends).tobytes()
    assert float(fitted.model.weights.sum()) == pytest.approx(1)


def test_best_weights_are_kept_and_their_metrics_match_the_forecasts(wave_data: Any) -> None:
    fitted = train(wave_data, replace(QUICK, learning_rate=0.3, epochs=8, patience=2))
    best = min(fitted.history, key=lambda epoch: epoch.validation_loss)
    assert len(fitted.history) - best.number <= 2
    ends = fitted.split.validation
    actual, observed = targets(wave_data, ends, 6, [0])
    scale = series_scale(wave_data, [0], fitted.split.cuts.validation)[wave_data.series[ends]][:, None]
    again = mse(forecast(fitted.model, wave_data, ends), actual, scale, observed)
    assert again == pytest.approx(best.validation_loss, rel=1e-4)
    naive = mse(baselines(wave_data, ends, 6, [0], {"day": 24})["day"], actual, scale, observed)
    assert fitted.card.metrics["naive_day_mse"] == pytest.approx(naive)
    assert fitted.naive_mse <= naive


def test_card_records_ranges_and_end_of_training_data(wave_data: Any) -> None:
    card = train(wave_data).card
    assert (card.input, card.output, card.arch) == (INPUTS, OUTPUTS, "segment")
    assert card.trained_until == wave_data.ts.max()
    assert card.ranges["value"] == (float(wave_data.values.min()), float(wave_data.values.max()))
    assert card.hyperparameters["segment"] == 6


def test_data_after_the_cut_does_not_affect_the_weights(make_data: MakeData, wave_data: Any) -> None:
    first = train(wave_data, replace(QUICK, epochs=1))
    values = wave_data.values.copy()
    values[wave_data.ts >= first.split.cuts.validation] *= -3
    assert weights(train(replace(wave_data, values=values), replace(QUICK, epochs=1))) == weights(first)


def test_filled_targets_do_not_affect_training(wave_data: Any) -> None:
    # No window looks at the last rows before the cut: they are only targets, of windows that end before them.
    cut = train(wave_data).split.cuts.validation
    filled = np.flatnonzero((wave_data.ts < cut) & (wave_data.ts >= cut - 6 * 3_600_000))
    observed = wave_data.observed.copy()
    observed[filled] = False
    values = wave_data.values.copy()
    values[filled] += 55
    with_holes = replace(wave_data, observed=observed)
    config = replace(QUICK, epochs=1)
    assert weights(train(replace(with_holes, values=values), config)) == weights(train(with_holes, config))


def test_several_features_forecast_some_of_them(make_data: MakeData) -> None:
    wave = np.sin(np.arange(300) / 4)
    data = make_data(np.stack([wave, 1e6 * np.roll(wave, 3), np.full(300, 5.0)], axis=1))
    inputs = InputSpec(seq_len=24, features=("a", "b", "c"))
    fitted = fit(data, inputs, OutputSpec(horizon=6, targets=("c", "b")), QUICK, "three")
    assert forecast(fitted.model, data, fitted.split.validation[:9]).shape == (9, 6, 2)
    assert set(fitted.card.ranges) == {"a", "b", "c"}
    assert fitted.naive_mse == fitted.card.metrics["naive_last_mse"]
    assert np.isfinite(fitted.card.metrics["validation_mse"])


def test_non_negative_forecasts_are_clipped_at_zero(wave_data: Any) -> None:
    around_zero = replace(wave_data, values=wave_data.values - wave_data.values.mean())
    ends = around_zero.ends[-200:]
    free, bound = (
        fit(around_zero, INPUTS, OutputSpec(horizon=OUTPUTS.horizon, non_negative=only), QUICK, "waves")
        for only in (False, True)
    )
    made = forecast(free.model, around_zero, ends)
    assert made.min() < 0
    assert forecast(bound.model, around_zero, ends).tobytes() == np.maximum(made, 0).tobytes()
    again = build_network(bound.card).eval()
    again.load_state_dict(bound.model.state_dict())
    assert forecast(again, around_zero, ends).min() == 0


def test_bf16_training_is_about_as_accurate(wave_data: Any) -> None:
    if not supports_bf16():
        with pytest.raises(ValueError, match="bf16: this processor does not support bfloat16"):
            train(wave_data, replace(QUICK, bf16=True))
        return
    whole, half = (train(wave_data, replace(QUICK, bf16=bf16)) for bf16 in (False, True))
    assert weights(half) != weights(whole)
    assert half.card.metrics["validation_mse"] == pytest.approx(whole.card.metrics["validation_mse"], rel=0.2)


def test_training_on_a_constant_history_works(make_data: MakeData) -> None:
    fitted = train(make_data(np.full(200, 0.1)))
    made = forecast(fitted.model, make_data(np.full(200, 0.1)), np.array([30]))
    assert made.flatten().tolist() == pytest.approx([0.1] * 6, abs=0.05)


def test_training_on_windows_with_a_gap_works(wave_data: Any) -> None:
    ts = np.delete(np.arange(300, dtype=np.int64) * 3_600_000, [150, 151])
    values = np.delete(wave_data.values[:300], [150, 151], axis=0)
    data: WindowData = sliding_windows(["pump"] * 298, ts, values, WindowConfig(seq_len=24, freq="1h"))
    assert train(data).card.trained_until == ts[-1]


def test_diverging_training_is_an_error(make_data: MakeData, wave_data: Any) -> None:
    with pytest.raises(ValueError, match=r"^learning_rate: the error is (nan|inf)"):
        train(wave_data, replace(QUICK, learning_rate=1e38))


def test_too_few_events_error_says_how_many_are_needed(make_data: MakeData) -> None:
    with pytest.raises(ValueError, match=r"too few windows.*needs 30 events"):
        train(make_data(np.zeros(37)))


def test_unavailable_gpu_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ValueError, match=r"^device: "):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("arch", "gru"),
        ("location", "median"),
        ("hidden", 0),
        ("layers", -1),
        ("epochs", 0),
        ("patience", 0),
        ("batch", 0),
        ("learning_rate", float("nan")),
        ("clip", 0.0),
        ("dropout", 1.0),
        ("validation", 0.0),
        ("epoch_windows", 0),
        ("seconds", 0.0),
    ],
)
def test_forecast_setting_error_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        ForecastConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", ["segment", "linear", "naive", "blend"])
def test_every_network_s_card_has_the_quantiles_of_its_errors_in_validation(wave_data: Any, arch: Any) -> None:
    fitted = train(wave_data, replace(QUICK, arch=arch))
    residuals, ends = fitted.card.residuals, fitted.split.validation
    assert residuals is not None
    actual, _ = targets(wave_data, ends, 6, [0])
    errors = actual - forecast(fitted.model, wave_data, ends)
    margins = residuals.margins(0.8, window_scales(wave_data, ends, fitted.card)[:, 0])
    inside = (errors[..., 0] >= -margins[..., 0]) & (errors[..., 0] <= margins[..., 1])
    assert ((inside.mean(axis=0) >= 0.8) & (inside.mean(axis=0) < 0.8 + 4 / len(ends))).all(), "on the safe side"
