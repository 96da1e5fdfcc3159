"""Other users of the machine, whom only root can stand for."""

from __future__ import annotations

import os

import pytest

NOBODY = 65534
"""The user and group `nobody`."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that belong to somebody else")
