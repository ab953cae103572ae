import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]
ONE = """
import sys
import numpy as np
from safetensors.torch import save_file
from model.training import distributed
from model.training.forecasting import ForecastConfig, fit
from model.card import InputSpec, OutputSpec
from pipeline.windows.grid import WindowConfig
from pipeline.windows.sliding import sliding_windows

wave = np.sin(np.arange(401) * 2 * np.pi / 24) + np.random.default_rng(0).normal(0, 0.1, 401)
hours = np.arange(401) * 3_600_000
data = sliding_windows(["wave"] * 401, hours, wave[:, None], WindowConfig(seq_len=48, freq="1h"))
config = ForecastConfig(arch="segment", hidden=8, epochs=3, dropout=0, batch=37)
fitted = fit(data, InputSpec(seq_len=48, freq="1h"), OutputSpec(horizon=12), config, "wave")
if distributed.is_rank_zero():
    save_file(fitted.model.state_dict(), sys.argv[1])
    print(fitted.card.metrics["validation_mse"])
"""


def run(*command: str, processes: int = 1) -> str:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *launcher, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_distributed_training_matches_a_single_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "one.py"
    script.write_text(ONE)
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "1.st")])
    runpy.run_path(str(script))
    error = float(capsys.readouterr().out)
    assert float(run(str(script), str(tmp_path / "2.st"), processes=2)) == pytest.approx(error, rel=1e-3)
    alone, together = (load_file(tmp_path / f"{count}.st") for count in (1, 2))
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_distributed_training_registers_one_version(tmp_path: Path) -> None:
    table = tmp_path / "power.csv"
    table.write_text(
        "ts,value\n" + "".join(f"2024-01-{day // 24 + 1:02d}T{day % 24:02d}:00,{day % 24}\n" for day in range(720))
    )
    command = ["-m", "tidecast", "train", "--data", str(table), "--name", "power", "--epochs", "1", "--json"]
    store = ["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--arch", "segment"]
    (line,) = run(*command, *store, processes=2).splitlines()
    assert json.loads(line)["model"] == "power/1"
