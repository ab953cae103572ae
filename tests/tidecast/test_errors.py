"""The tree of errors: as it is drawn, and what the command line makes of it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import tidecast as door
from pipeline.formats.dead_letters import InvalidEvent
from tidecast import errors
from tidecast.errors import ConfigError, DataError, ShapeError, TidecastError

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]


def below(kind: type[TidecastError]) -> Iterator[type[TidecastError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from below(each)


def drawn() -> Iterator[tuple[str, str, int]]:
    """Each error in the module's picture: its name, that of the one above it, its exit code."""
    above: list[str] = []
    for indent, name, code in re.findall(r"^    ( *)(\w+) +(\d\d)  ", str(errors.__doc__), re.MULTILINE):
        above[len(indent) // 2 :] = [name]
        yield name, above[-2] if above[1:] else "Exception", int(code)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    real = {(each.__name__, each.__bases__[0].__name__, each.exit_code) for each in below(TidecastError)}
    assert set(drawn()) == real
    assert {kind for kind in below(TidecastError) if kind.__module__ != errors.__name__} == {InvalidEvent}


def test_each_error_has_a_code_of_sysexits() -> None:
    codes = {code for name, code in vars(os).items() if name.startswith("EX_") and code}
    assert {kind.exit_code for kind in below(TidecastError)} <= codes
    assert all("exit_code" in vars(kind) for kind in below(TidecastError)), "its own, not by chance the one above's"


def test_only_what_is_wrong_with_a_value_is_a_value_error() -> None:
    values = {kind for kind in below(TidecastError) if issubclass(kind, ValueError)}
    assert values == {*below(ConfigError), *below(DataError), *below(ShapeError)}


def test_the_package_exports_the_tree_and_the_forecaster() -> None:
    tree = {kind.__name__ for kind in below(TidecastError) if kind.__module__ == errors.__name__}
    assert set(door.__all__) == tree | {"Forecaster", "__version__"}
    assert dir(door) == sorted(door.__all__)
    assert all(getattr(door, name) is getattr(errors, name) for name in tree)
    with pytest.raises(AttributeError, match="'tidecast' has no attribute 'Forcaster'"):
        _ = getattr(door, "Forcaster")  # noqa: B009


@pytest.mark.parametrize("kind", [kind for kind in below(TidecastError) if kind is not InvalidEvent])
def test_an_error_of_ours_is_one_line_and_its_code(
    tidecast: Tidecast, monkeypatch: pytest.MonkeyPatch, kind: type[TidecastError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("it went wrong")

    monkeypatch.setattr("deploy.operations.ingest.ingest", fail)
    ended = tidecast("ingest", "-", "--topic", "power")
    assert (ended.returncode, ended.stdout, ended.stderr) == (kind.exit_code, "", "tidecast: it went wrong\n")


def test_an_error_of_another_is_a_bug_and_shows_where() -> None:
    broken = "deploy.operations.ingest.ingest = lambda *_, **__: numpy.zeros(2) + numpy.zeros(3)"
    program = f"import numpy, deploy.operations.ingest; {broken}; from tidecast.__main__ import main; main()"
    command = [sys.executable, "-c", program, "ingest", "-", "--topic", "power"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Traceback")
    assert ended.stderr.splitlines()[-1].startswith("ValueError: operands could not be broadcast together")
