"""The entry point of the command line, which needs the extra ``[cli]``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

_NEEDED = frozenset({"click", "rich"})


def main(
    arguments: Sequence[str] | None = None,
    *,
    described: Mapping[str, Any] | None = None,
    name: str = "pawprint-logging",
) -> int:
    """Run the command line.

    Args:
        arguments: those after the program's name; default: those of the process.
        described: tracker arguments from a framework, in place of the environment variables; options win over them.
        name: the program's name in messages.

    Returns:
        The exit status: 0, 1 for an error, 2 for a mistake in the arguments, 130 after Ctrl-C.
    """
    try:
        from ._console.app import run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write(f'{name}: the command line needs {error.name}: pip install "pawprint-logging[cli]"\n')
        return 1
    except KeyboardInterrupt:  # nothing has started yet
        return 130
    return run(arguments, described, name)
