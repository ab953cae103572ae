"""A topic on the screen."""

from contextlib import closing, suppress

from rich.console import Console
from rich.text import Text

from deploy.config import open_log
from pipeline.tail import describe, tail


def show(bootstrap: str, topic: str, last: int, follow: bool) -> None:
    """Print a topic's newest records to stdout, one a line, and with `follow` what arrives until interrupted."""
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    with closing(open_log(bootstrap)) as log, suppress(KeyboardInterrupt):
        for record in tail(log, topic, last=last, follow=follow):
            line = describe(record)
            where = f"{line.time} {line.partition}:{line.offset}"
            console.print(Text.assemble((where, "dim"), " ", (line.key, "bold"), " ", line.text))
