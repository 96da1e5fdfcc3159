"""Freeing replaced parts: those that end one after the other, and one that ends shortly before a collection."""

import gc
import weakref

from router.engine.reload.freeing import Freeing
from tests.support.waiting import until


class Part:
    def __init__(self):
        self.itself = self


async def test_parts_are_freed_while_others_go_on_ending_and_so_is_the_last():
    freeing, first, last = Freeing(), Part(), Part()
    parts = weakref.ref(first), weakref.ref(last)
    gc.disable()  # no other collection frees them
    try:
        del first

        def first_is_freed():
            """Other parts end again and again until then."""
            if parts[0]() is None:
                return True
            freeing.part_ended()
            return False

        await until(first_is_freed, "the first collection")
        assert parts[1]() is last
        del last
        await until(lambda: parts[1]() is None, "another collection")
    finally:
        gc.enable()
