"""Uses the package in a subinterpreter, or is told why not."""

from __future__ import annotations

import os
import sys

try:
    import _interpreters as interpreters  # Python 3.13
except ImportError:
    import _xxsubinterpreters as interpreters  # type: ignore[no-redef,import-not-found,unused-ignore]

SCRIPT = f"""
import sys
sys.path[:] = {sys.path!r}
sys.argv = {sys.argv!r}
try:
    import pawprint_logging
except ImportError as error:
    outcome = "ImportError: " + str(error)
else:
    from faults.programs.life import Life
    life = Life.from_argument()
    handler = life.open()
    life.log(5)
    assert handler.flush(60)
    handler.close()
    outcome = "stored"
with open({sys.argv[2]!r}, "w") as file:
    file.write(outcome)
"""
inner = interpreters.create()
problem = interpreters.run_string(inner, SCRIPT)
assert not problem, problem
interpreters.destroy(inner)
# CPython 3.12 and 3.13 crash in their finalization once a subinterpreter has imported hashlib or a module that refused
# to load: not ours
os._exit(0)
