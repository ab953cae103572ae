"""Files that hide our packages: a model.py in the folder one works in is imported in place of our package `model`."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("pipeline", "model", "deploy")
HOME = Path(__file__).parent.parent
"""The folder that all packages of one installation lie in."""


def refuse_shadowed() -> None:
    """Raises ImportError, with the file to rename, if a package of ours means another file or folder; imports none."""
    for name in PACKAGES:
        found = _imported(name) if name in sys.modules else _importable(name)
        if found is not None and not _same(found, HOME / name):
            raise ImportError(
                f"{found} hides Tidecast's package {name!r}: rename it, or start Python in another folder or with -P",
                name=name,
                path=found,
            )


def _imported(name: str) -> str | None:
    """The folder of a package, or the file of a module, that has been imported by this name."""
    module = sys.modules[name]
    return _place(getattr(module, "__path__", None), getattr(module, "__file__", None) or str(module))


def _importable(name: str) -> str | None:
    """The folder or file that would be imported by this name; None: there is none."""
    spec = find_spec(name)
    return None if spec is None else _place(spec.submodule_search_locations, spec.origin)


def _place(folders: Iterable[str] | None, file: str | None) -> str | None:
    return next(iter(folders or ()), file)


def _same(found: str, ours: Path) -> bool:
    return Path(found).exists() and ours.exists() and ours.samefile(found)
