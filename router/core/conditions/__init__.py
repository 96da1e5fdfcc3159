"""Conditions on the payload: which events a route takes; pure.

Module `reading` parses a written `match` to clauses. `match_schema` compiles clauses to JSON Schema. `index` evaluates
the simple clauses of many routes together. `why` returns the clauses that held for an event.
"""

from router.core.conditions.condition import Condition, Subject, When
from router.core.conditions.match import BrokenMatchError, Match, compile_match

__all__ = ["BrokenMatchError", "Condition", "Match", "Subject", "When", "compile_match"]
