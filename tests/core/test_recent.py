"""What was seen last."""

from router.core.recent import Recent


def test_what_was_put_in_first_is_forgotten_first():
    recent = Recent(2)
    for number, key in enumerate("abac"):
        recent[key] = number
    assert recent == {"a": 2, "c": 3}
    recent["a"] = 4
    assert list(recent) == ["c", "a"]
