"""Replays a fallback file."""

from __future__ import annotations

import json
import sys

from pawprint_logging import Tracker
from pawprint_logging._delivery.replay import replay

spec = json.loads(sys.argv[1])
result = replay(Tracker(db=spec["db"], table="events"), sys.argv[2])
print(result.written, result.present, result.rejected)
