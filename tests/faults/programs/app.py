"""A WSGI application that logs one event for each request; loaded before the fork, or after it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from faults.programs.life import Life

life = Life(json.loads(os.environ["FAULTS_SPEC"]))
life.open()
life.log()  # the thread runs when the server forks


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    life.log()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
