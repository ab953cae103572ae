"""Files that hide our packages: a model.py in the folder one works in is imported in place of our package `model`."""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("pipeline", "model", "deploy")
HOME = Path(__file__).parent.parent
"""The folder that all packages of one installation lie in."""


def refuse_shadowed() -> None:
    """Raises ImportError, with the file to rename, if a package of ours means another file or folder; imports none."""
    for name in PACKAGES:
        found = _found(name)
        if found is not None and not _same(found, HOME / name):
            raise ImportError(
                f"{found} hides Tidecast's package {name!r}: rename it, or start Python in another folder or with -P",
                name=name,
                path=str(found),
            )


def _found(name: str) -> Path | None:
    """The file or folder that is imported by a name, or has been; a package's is its folder. None: there is none."""
    if name in sys.modules:
        module = sys.modules[name]
        folders, origin = getattr(module, "__path__", None), getattr(module, "__file__", None)
    else:
        spec = find_spec(name)
        folders, origin = (None, None) if spec is None else (spec.submodule_search_locations, spec.origin)
    place = next(iter(folders or ()), origin)
    return None if place is None else Path(place)


def _same(found: Path, ours: Path) -> bool:
    return found.exists() and ours.exists() and found.samefile(ours)
