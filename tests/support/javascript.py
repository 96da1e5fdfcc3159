"""The reference libraries in JavaScript, where node and the packages are installed.

`npm ci --prefix tests/javascript` installs the packages; `.ci/run` does it where it can.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.process import ROOT

FOLDER = ROOT / "tests" / "javascript"

needs_javascript = pytest.mark.skipif(
    not shutil.which("node") or not (FOLDER / "node_modules" / "standardwebhooks").exists(),
    reason="needs node, and: npm ci --prefix tests/javascript",
)


def asked_of_javascript(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `verify.mjs` says of each request: its `value`, or the `error`."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(
        ["node", str(FOLDER / "verify.mjs")], input=lines, capture_output=True, text=True, timeout=60, check=True
    )
    return [json.loads(line) for line in done.stdout.split("\n") if line]
