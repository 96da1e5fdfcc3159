"""Conditions on the payload: which events a route takes; pure.

`reading` makes clauses of a written `match`, `compiling` makes JSON Schema of clauses, `index` answers the simple clauses of
many routes together, and `why` says which clauses held.
"""

from router.core.conditions.condition import Condition, Subject, When
from router.core.conditions.match import BrokenMatchError, Match, compile_match
from router.core.conditions.why import Reason, why

__all__ = ["BrokenMatchError", "Condition", "Match", "Reason", "Subject", "When", "compile_match", "why"]
