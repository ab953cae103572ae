"""The command line: `tidecast`, or `python -m tidecast`."""

import os
import sys

from tidecast.shadowing import refuse_shadowed


def main() -> None:
    """Run the command line, unless a file in the folder it runs in hides a package of ours: that is said."""
    try:
        refuse_shadowed()
    except ImportError as error:
        print(f"tidecast: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(os.EX_CONFIG)
    from deploy.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
