"""The package as one imports and runs it, in folders that hold files called like our packages."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import tidecast

ROOT = Path(tidecast.__file__).parents[1]
IMPORT = "from tidecast import Forecaster; print(Forecaster.__module__)"
WAY_OUT = "rename it, or start Python in another folder or with -P"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find these packages, after what lies where they start."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)


def hides(name: str, package: str, ended: "subprocess.CompletedProcess[str]") -> None:
    assert (ended.returncode, ended.stdout) == (1, "")
    message = f"ImportError: {name} hides Tidecast's package '{package}': {WAY_OUT}"
    assert ended.stderr.splitlines()[-1] == message


@pytest.mark.slow
def test_a_file_called_like_a_package_is_said(tmp_path: Path) -> None:
    hidden = tmp_path / "model.py"
    hidden.write_text("raise AssertionError('nothing of the user is run')")
    (tmp_path / "script.py").write_text(IMPORT)
    hides(str(hidden), "model", python(tmp_path, "script.py"))
    hides(str(hidden), "model", python(tmp_path, "-c", IMPORT))
    assert python(tmp_path, "-P", "-c", IMPORT).stdout == "deploy.forecaster\n"


def test_one_that_was_imported_before_is_said_too(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("")
    notebook = f"import pipeline, sys; sys.path.remove(''); {IMPORT}"
    hides(str(tmp_path / "pipeline.py"), "pipeline", python(tmp_path, "-c", notebook))
    (tmp_path / "pipeline.py").unlink()
    made = f"import sys, types; sys.modules['model'] = types.ModuleType('model'); {IMPORT}"
    hides("<module 'model'>", "model", python(tmp_path, "-c", made))


@pytest.mark.parametrize("package", ["pipeline", "model", "deploy"])
def test_a_folder_called_like_a_package_is_said(tmp_path: Path, package: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    hides(str(tmp_path / package), package, python(tmp_path, "-c", IMPORT))


@pytest.mark.slow
def test_a_folder_of_other_files_matters_only_where_it_hides_ours(tmp_path: Path) -> None:
    """A folder without __init__.py comes after ours on the path, and before what an editable install adds."""
    (tmp_path / "model").mkdir()
    assert python(tmp_path, "-c", IMPORT).stdout == "deploy.forecaster\n"
    editable = f"""
import sys
from importlib.machinery import PathFinder

class Added:
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{str(ROOT)!r}]) if path is None else None

sys.path.remove({str(ROOT)!r})
sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Added)
{IMPORT}
"""
    hides(str(tmp_path / "model"), "model", python(tmp_path, "-c", editable))
    (tmp_path / "model").rmdir()
    assert python(tmp_path, "-c", editable).stdout == "deploy.forecaster\n"


def test_the_command_line_says_it_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "deploy.py").touch()
    ended = python(tmp_path, "-m", "tidecast", "--version")
    message = f"tidecast: {tmp_path / 'deploy.py'} hides Tidecast's package 'deploy': {WAY_OUT}\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (os.EX_CONFIG, "", message)
    there = python(tmp_path, "-P", "-m", "tidecast", "--version")
    assert (there.returncode, there.stdout, there.stderr) == (0, f"tidecast {version('tidecast')}\n", "")


@pytest.mark.slow
def test_other_files_are_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("raise AssertionError")
    ended = python(tmp_path, "-c", IMPORT)
    assert (ended.returncode, ended.stdout) == (0, "deploy.forecaster\n"), ended.stderr
    assert python(tmp_path, "-m", "tidecast", "--version").returncode == 0


def test_importing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("numpy", "polars", "torch", "deploy", "model", "pipeline")
    program = f"import sys, tidecast; print([name for name in {heavy!r} if name in sys.modules], tidecast.__version__)"
    assert python(tmp_path, "-c", program).stdout == f"[] {version('tidecast')}\n"
