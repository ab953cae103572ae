"""What Tidecast does on an NVIDIA GPU, beside the CPU: the same forecasts, swaps, memory, speed, training.

    make gpu            or, in an environment with torch for CUDA and onnxruntime-gpu: python benchmarks/gpu.py

Prints a line for each figure as it comes, and writes them to docs/gpu.md. It ends within eight minutes: each part has
its own limit, and what there was no time for is left out, and said to be. 1 if anything is not as it must be.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import gpu_parts
from gpu_environment import ROOT, has_gpu
from gpu_parts import Place, Row

DOCUMENT = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- what make gpu measured: begin -->", "<!-- end -->"
TOTAL_S, LEAST_S = 430.0, 15.0
"""How long all parts may take, and the time left under which none is begun."""


@dataclass(slots=True)
class Part:
    """One part, and what came of it."""

    title: str
    header: tuple[str, ...]
    limit_s: float
    run: Callable[[Place], Iterator[Row]]
    rows: list[Row] = field(default_factory=list)
    note: str = ""
    failed: bool = False

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be."""
        return [row.wrong for row in self.rows if row.wrong] + ([self.note] if self.failed else [])


def parts() -> list[Part]:
    """All there are, what matters most first."""
    both = ("CPU", "GPU", "GPU to CPU")
    return [
        Part("The machine", ("what", "found"), 60, gpu_parts.machine),
        Part("Forecasts equal to the CPU's", ("model", "greatest difference, relative"), 120, gpu_parts.parity),
        Part("A service: swaps, a shadow, memory", ("what", "found"), 90, gpu_parts.swaps),
        Part("Inference, windows/s", ("hidden", "batch", *both), 75, gpu_parts.inference),
        Part("Training", ("hidden", "batch", "device", "bf16", "seconds", "error"), 120, gpu_parts.training),
        Part("Serving, records/s", ("log", "hidden", *both), 90, gpu_parts.serving),
    ]


def attempt(part: Part, place: Place, left_s: float) -> None:
    """Runs a part for as long as it may, and keeps its rows; nothing that goes wrong in it ends the others.

    In a process of its own, with all that it starts: a GPU that hangs can't be interrupted, and CUDA's libraries are
    set up once a process, for serving otherwise than for training.
    """
    if left_s < LEAST_S:
        part.note = "left out: there was no time for it"
        return
    context, seconds = get_context("spawn"), min(part.limit_s, left_s)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(part.run, place, sender))
    process.start()
    sender.close()
    try:
        part.note = _received(receiver, part, time.monotonic() + seconds)
        part.failed = part.note.startswith("failed")
        process.join(0 if part.note else 5)
    finally:
        assert process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()


def _received(receiver: Connection, part: Part, deadline: float) -> str:
    """Takes a part's rows as they come; why it ended before its end, or nothing."""
    begun = time.monotonic()
    while receiver.poll(max(0.0, deadline - time.monotonic())):
        try:
            found: Row | str = receiver.recv()
        except EOFError:
            return "failed: its process ended"
        if isinstance(found, str):
            return found
        part.rows.append(found)
        say(f"  {' | '.join(found.cells)}{f'   WRONG: {found.wrong}' if found.wrong else ''}")
    return f"not finished in {time.monotonic() - begun:.0f} s: the rest is left out"


def work(run: Callable[[Place], Iterator[Row]], place: Place, sender: Connection) -> None:
    """What a part's process does: it sends its rows, and at the end a text, empty if all went well."""
    os.setsid()
    try:
        for row in run(place):
            sender.send(row)
        sender.send("")
    except (Exception, SystemExit) as error:  # whatever it is, the other parts are worth having
        sender.send(f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def attempt_all(wanted: Sequence[Part], place: Place, total_s: float) -> None:
    """One part after the other, each in a folder of its own."""
    deadline = time.monotonic() + total_s
    for number, part in enumerate(wanted):
        say(part.title)
        folder = place.folder / str(number)
        folder.mkdir()
        attempt(part, Place(place.device, folder), deadline - time.monotonic())
        if part.note:
            say(f"  {part.note}")


def report(tried: Sequence[Part]) -> str:
    """What came of the parts, in Markdown."""
    wrong = [each for part in tried for each in part.wrong]
    verdict = f"Not as it must be: {'; '.join(wrong)}." if wrong else "All that is checked is as it must be."
    return "\n\n".join([verdict, *(_section(part) for part in tried)])


def _section(part: Part) -> str:
    lines = [part.header, tuple("---" for _ in part.header), *(row.cells for row in part.rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n\n".join([f"### {part.title}", *([table] if part.rows else []), *([part.note] if part.note else [])])


def keep(document: Path, text: str) -> None:
    """Writes a text between the marks of a document, in the place of what stands there."""
    before, _, rest = document.read_text().partition(BEGIN)
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def say(line: str) -> None:
    """A line for people."""
    print(line, flush=True)


def main() -> int:
    """Try all parts."""
    if not has_gpu():
        say("there is no NVIDIA GPU here: skipped")
        return 0
    tried = parts()
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        attempt_all(tried, Place("cuda", Path(folder)), TOTAL_S)
    keep(DOCUMENT, report(tried))
    wrong = [each for part in tried for each in part.wrong]
    say(f"written to {DOCUMENT.relative_to(ROOT)}; " + (f"WRONG: {'; '.join(wrong)}" if wrong else "all as it must be"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
