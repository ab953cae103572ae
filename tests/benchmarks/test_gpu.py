"""What of `make gpu` runs without a GPU."""

import subprocess
import sys
from pathlib import Path

import gpu_environment
import pytest

ROOT = Path(gpu_environment.__file__).resolve().parent.parent


@pytest.mark.skipif(gpu_environment.has_gpu(), reason="there is a GPU: make gpu would install and measure")
def test_make_gpu_without_a_gpu_says_so_and_installs_nothing(tmp_path: Path) -> None:
    command = ["make", "-C", str(ROOT), "gpu", f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}", "WHEELS=wheels"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "there is no NVIDIA GPU here: skipped\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_wheels_in_pieces_are_joined_in_order_and_whole_ones_left_alone(tmp_path: Path) -> None:
    wheels, contents = tmp_path / "wheels", {"big-1.whl": bytes(range(256)) * 5, "other-2.whl": b"two"}
    wheels.mkdir()
    (wheels / "whole-3.whl").write_bytes(b"whole")
    for name, content in contents.items():
        for number in range(0, len(content), 100):
            (wheels / f"{name}.part-{number // 100:02}").write_bytes(content[number : number + 100])
    made = gpu_environment.joined(wheels, tmp_path / "joined")
    assert {path.name: path.read_bytes() for path in made} == contents
    assert sorted((tmp_path / "joined").iterdir()) == sorted(made)


def test_a_wheel_with_a_piece_missing_is_one_line(tmp_path: Path) -> None:
    for number in (0, 2):
        (tmp_path / f"big-1.whl.part-{number:02}").write_bytes(b"piece")
    with pytest.raises(SystemExit, match=r"big-1\.whl has parts missing"):
        gpu_environment.joined(tmp_path, tmp_path / "joined")


def test_onnxruntime_gives_way_to_its_gpu_build_and_torch_to_the_one_there_is() -> None:
    names = [each.split(">=")[0] for each in gpu_environment.requirements(has_torch=True)]
    assert {"onnxruntime-gpu", "mlflow", "polars"} <= set(names)
    assert not {"onnxruntime", "torch"} & set(names)
    assert "torch" in [each.split(">=")[0] for each in gpu_environment.requirements(has_torch=False)]


def test_a_part_that_takes_too_long_is_ended_and_said_to_be_unfinished(tmp_path: Path) -> None:
    gpu = pytest.importorskip("gpu")
    slow = gpu.Part("slow", ("a",), 0.05, gpu.gpu_parts.parity)
    late = gpu.Part("late", ("a",), 60, gpu.gpu_parts.parity)
    gpu.attempt(slow, gpu.Place("cpu", tmp_path), left_s=60)
    gpu.attempt(late, gpu.Place("cpu", tmp_path), left_s=1)
    assert (slow.note, slow.wrong) == ("not finished in 0 s: the rest is left out", [])
    assert late.note == "left out: there was no time for it"
    assert "### slow\n\nnot finished" in gpu.report([slow, late])


def test_the_page_keeps_what_stands_around_the_figures(tmp_path: Path) -> None:
    gpu = pytest.importorskip("gpu")
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text())
    part = gpu.Part(
        "Speed", ("hidden", "GPU"), 1, gpu.gpu_parts.machine, [gpu.Row(("64", "9")), gpu.Row(("8", "1"), "slow")]
    )
    for _ in range(2):
        gpu.keep(page, gpu.report([part]))
    text = page.read_text()
    assert text.count("### Speed") == text.count("| 64 | 9 |") == 1
    assert "Not as it must be: slow." in text
    assert "has not run" not in text
    assert text.startswith("# On a GPU\n")
    assert text.endswith("<!-- end -->\n")
