"""An environment to try Tidecast on a GPU in, and then the trial (gpu.py) in it: what `make gpu` runs.

    python gpu_environment.py FOLDER [--wheels DIR]

Needs this Python alone, 3.11 or later. Where it holds torch with CUDA, that is used, and nothing of what it holds is
installed again. With --wheels everything else comes from a folder, in which a large wheel may lie in pieces:
NAME.whl.part-00, NAME.whl.part-01, ... Without a GPU it says so, and installs nothing.
"""

import argparse
import os
import shutil
import site
import subprocess
import sys
import tomllib
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ONNXRUNTIME_GPU = "onnxruntime-gpu>=1.23"
PART = ".part-"


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is there, by the driver's devices or its own program."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    found = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return found.returncode == 0 and "GPU" in found.stdout


def joined(wheels: Path, into: Path) -> list[Path]:
    """The wheels that lie in pieces in a folder, each put together in another one, which is made. Raises SystemExit for
    a piece that is missing before the last."""
    into.mkdir(parents=True, exist_ok=True)
    parts = sorted(wheels.glob(f"*.whl{PART}*"))
    made = []
    for name, each in groupby(parts, key=lambda part: part.name.rpartition(PART)[0]):
        pieces = list(each)
        if [int(piece.name.rpartition(PART)[2]) for piece in pieces] != list(range(len(pieces))):
            raise SystemExit(f"{wheels}: {name} has parts missing: there are {[piece.suffix for piece in pieces]}")
        with (into / name).open("wb") as wheel:
            for piece in pieces:
                with piece.open("rb") as content:
                    shutil.copyfileobj(content, wheel)
        made.append(into / name)
    return made


def cuda_of_torch() -> str:
    """The CUDA that this Python's torch was built for; empty where there is no torch, or only one for CPUs."""
    ask = "import torch; print(torch.version.cuda or '')"
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


def requirements(has_torch: bool) -> list[str]:
    """What Tidecast needs to train and serve, with onnxruntime-gpu in the place of onnxruntime: both write the same
    package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    kept = [each for each in wanted if not each.startswith("onnxruntime") and not (has_torch and each[:5] == "torch")]
    return [*kept, ONNXRUNTIME_GPU]


def make(folder: Path, wheels: Path | None) -> Path:
    """The environment's Python. What was made before with the same options is kept."""
    python, stamp, cuda = folder / "bin" / "python", folder / ".installed", cuda_of_torch()
    options = (
        [] if wheels is None else ["--no-index", "--find-links", str(wheels), "--find-links", str(folder / "joined")]
    )
    if not cuda and wheels is None:
        options = ["--constraint", str(ROOT / "requirements.lock")]
    wanted = [*options, *requirements(bool(cuda))]
    if stamp.is_file() and stamp.read_text() == "\n".join([sys.executable, cuda, *wanted]):
        return python
    print(f"installing into {folder}, once{f', beside torch for CUDA {cuda}' if cuda else ''}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    pip = _venv(folder, python)
    if wheels is not None:
        joined(wheels, folder / "joined")
    if cuda:
        _inherit(python)
    subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
    shutil.rmtree(folder / "joined", ignore_errors=True)
    stamp.write_text("\n".join([sys.executable, cuda, *wanted]))
    return python


def _venv(folder: Path, python: Path) -> list[str]:
    """Makes a virtual environment; how to call pip for it. A Python of a distribution may have no ensurepip."""
    own = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    without = ["--without-pip"] if own else []
    subprocess.run([sys.executable, "-m", "venv", *without, str(folder)], check=True)
    return [sys.executable, "-m", "pip", "--python", str(python)] if own else [str(python), "-m", "pip"]


def _inherit(python: Path) -> None:
    """Lets the environment see what this Python holds, after what is its own. (--system-site-packages would not do
    where this Python is of a virtual environment itself.)"""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    places = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    (Path(own) / "zz_inherited.pth").write_text("\n".join(place for place in places if Path(place).is_dir()) + "\n")


def main() -> None:
    """Make it, and try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheels", type=lambda text: Path(text).resolve() if text else None, metavar="DIR")
    given = parser.parse_args()
    if not has_gpu():
        print("there is no NVIDIA GPU here: skipped")
        return
    try:
        python = make(given.folder.absolute(), given.wheels)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"the environment could not be made: {error}") from None
    os.environ["PYTHONPATH"] = str(ROOT)
    os.execv(python, [str(python), str(ROOT / "benchmarks" / "gpu.py")])


if __name__ == "__main__":
    main()
