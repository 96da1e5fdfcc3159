"""The version of the plugin API that a plugin requires: the assignment `requires_api = 1` in its module; floor 3."""

from __future__ import annotations

import ast
from typing import Any

from router.hookspecs import API_VERSION

_NAME = "requires_api"


def check_source(source: bytes) -> None:
    """Raise `ValueError` if the source of a plugin requires a newer API. The plugin is not imported yet.

    Without this check, the import would fail at the first name that this router lacks, and the error would not name the
    cure. `check_module` checks a value that is not a literal.
    """
    if _NAME.encode() not in source:
        return
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):  # the import reports the fault
        return
    for statement in statements:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Constant):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Name) and target.id == _NAME for target in targets):
                _check(statement.value.value)


def check_module(module: Any) -> None:
    """Raise `ValueError` if an imported plugin requires a newer API, or if its `requires_api` is not a version."""
    _check(getattr(module, _NAME, API_VERSION))


def _check(required: object) -> None:
    if isinstance(required, bool) or not isinstance(required, int) or required < 1:
        raise ValueError(
            f"`{_NAME}` must be the number of a version of the plugin API, such as {API_VERSION}, not {required!r}"
        )
    if required > API_VERSION:
        raise ValueError(
            f"the plugin requires version {required} of the plugin API, but this event-router has version {API_VERSION}: "
            "upgrade event-router, or install an older version of the plugin"
        )
