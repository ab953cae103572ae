import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.card import Card, InputSpec, OutputSpec, read_card
from model.evaluation.intervals import Calibration, window_scales
from model.residuals import LEAST, LEVELS, Residuals, window_scale
from tidecast.errors import DataError

NORMAL = np.random.default_rng(1).normal(size=(999, 3, 2))
RESIDUALS = Residuals(
    levels=(0.05, 0.5, 0.95),
    steps=(1, 3),
    quantiles={"load": ((-2.0, 0.0, 1.0), (-4.0, -3.0, -1.0)), "heat": ((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0))},
    typical={"load": 10.0, "heat": 100.0},
)


def card(**given: Any) -> Card:
    inputs, output = InputSpec(seq_len=24, features=("load", "heat")), OutputSpec(horizon=3, targets=("load", "heat"))
    return Card(name="m", input=inputs, output=output, arch="naive", trained_until=0, **given)


def test_the_scale_of_a_window_is_its_mean_absolute_deviation_whatever_its_batch() -> None:
    assert window_scale(np.array([[1.0, 1.0, 5.0, 5.0], [3.0, 3.0, 3.0, 3.0]])).tolist() == [2.0, 0.0]
    windows = np.random.default_rng(0).normal(size=(7, 336, 3)) * 1e6
    alone = [float(window_scale(window[None, :, 1])[0]) for window in windows]
    assert window_scale(windows[:, :, 1]).tolist() == alone
    assert window_scale(np.asfortranarray(windows[:, :, 1])).tolist() == alone


def test_margins_are_the_quantiles_times_the_scale_of_each_track() -> None:
    margins = RESIDUALS.margins(0.9, np.array([1.0, 2.0, 5.0, 7.0]))
    assert margins.shape == (4, 2, 2)
    assert margins[0].tolist() == [[2.0, 1.0], [4.0, -1.0]], "load's, and one bound lies beyond the forecast"
    assert margins[1].tolist() == [[2.0, 2.0], [2.0, 2.0]], "heat's"
    assert margins[2].tolist() == [[10.0, 5.0], [20.0, -5.0]]
    between = RESIDUALS.margins(0.45, np.array([1.0, 2.0]))
    assert between[0, 0].tolist() == pytest.approx([1.0, 0.5])
    assert RESIDUALS.margins(0.999, np.array([1.0, 2.0])).tolist() == margins[:2].tolist(), "nothing lies beyond"


def test_short_and_flat_windows_have_the_typical_scale_or_a_share_of_it() -> None:
    margins = RESIDUALS.margins(0.9, np.array([np.nan, 0.0]))
    assert margins[0, 0].tolist() == [20.0, 10.0]
    assert margins[1, 0].tolist() == [100 * LEAST, 100 * LEAST]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"quantiles": {"heat": RESIDUALS.quantiles["heat"], "load": RESIDUALS.quantiles["load"]}}, "targets"),
        ({"typical": {"load": 1.0}}, "targets"),
        ({"levels": (0.05, 0.95)}, "missing"),
        ({"steps": (1, 2)}, "from 1 to 3"),
        ({"levels": (0.5, 0.05, 0.95)}, "ascending"),
    ],
)
def test_a_card_refuses_residuals_that_are_not_its_own(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"^residuals: .*{says}"):
        card(residuals=msgspec.structs.replace(RESIDUALS, **changed))


def test_a_card_keeps_its_residuals_and_one_without_them_is_written_as_before() -> None:
    assert read_card(card(residuals=RESIDUALS).to_json()) == card(residuals=RESIDUALS)
    earlier = msgspec.json.encode(card()).decode()
    for later in ("residuals", "precision"):
        earlier = earlier.replace(f',"{later}":null', "")
        assert later not in earlier
    read = read_card(earlier)
    assert isinstance(read, Card)
    assert (read.residuals, read.to_json()) == (None, earlier)


def test_a_calibration_s_residuals_are_quantiles_on_the_safe_side() -> None:
    found = Calibration.of(NORMAL, np.full((999, 2), 4.0)).residuals((1, 3), ("load", "heat"))
    assert found is not None
    assert (found.steps, found.levels, found.typical) == ((1, 3), LEVELS, {"load": 4.0, "heat": 4.0})
    errors = np.sort(NORMAL[:, 2, 1]) / 4
    quantiles = found.quantiles["heat"][1]
    assert quantiles[LEVELS.index(0.95)] == pytest.approx(errors[949], rel=1e-5), "the 950th of 999"
    assert quantiles[LEVELS.index(0.05)] == pytest.approx(errors[49], rel=1e-5)


@given(observed=st.integers(0, 30))
def test_what_was_not_observed_is_no_error(observed: int) -> None:
    errors = NORMAL[:30].copy()
    errors[observed:, 1, 0] = np.nan
    found = Calibration.of(errors, np.ones((30, 2))).residuals((1, 2, 3), ("load", "heat"))
    if not observed:
        assert found is None
        return
    assert found is not None
    least, *_, greatest = found.quantiles["load"][1]
    of = errors[:observed, 1, 0]
    assert (least, greatest) == pytest.approx((of.min(), of.max()), rel=1e-5)


def test_scales_of_rows_are_those_of_their_unbroken_windows(make_data: Any) -> None:
    values = np.random.default_rng(0).normal(size=(80, 2))
    data = make_data(values[:50], values[50:], seq_len=24, breaks=[30])
    only = msgspec.structs.replace(card(), output=OutputSpec(horizon=3, targets=("heat",)))
    scales = window_scales(data, np.array([29, 32, 45, 79]), only)
    assert scales[0, 0] == window_scale(values[None, 6:30, 1])[0]
    assert np.isnan(scales[1, 0]), "three steps after a break"
    assert scales[2, 0] == window_scale(values[None, 30:46, 1])[0]
    assert scales[3, 0] == window_scale(values[None, 56:80, 1])[0]
    fewer = window_scales(data, np.array([45, 79]), only, most=np.array([10, 24]))[:, 0]
    assert fewer.tolist() == [window_scale(values[None, 36:46, 1])[0], scales[3, 0]]
    values[70, 1] = 1e9
    spiked = make_data(values, seq_len=24)
    kept = msgspec.structs.replace(only, spans={"heat": 10.0})
    assert window_scales(spiked, np.array([79]), kept)[0, 0] < 3, "a spike is no scale"


def test_residuals_import_neither_torch_nor_polars() -> None:
    code = "import sys, model.residuals, model.evaluation.intervals; print({'torch', 'polars'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
