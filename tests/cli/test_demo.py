"""`event-router demo`: it ends by itself, shows what it promises and touches nothing."""

from tests.support.process import run


def test_the_tour_ends_by_itself_and_shows_every_way(tmp_path):
    done = run("demo", cwd=tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "nobody"), "EVENT_ROUTER_INSTANCE": "x"})
    assert done.code == 0, done.err
    for part in (
        "user-chat (chat) to 42: Your order is on its way!",
        '"route":"notify"',
        '"pattern":"orders.*"',
        "dead letter (schema)",
        "/user_id type:",
        "/message required:",
        "dead letter (decode)",
        "unmatched: no route takes",
        "received      5",
        "rejected      decode 1, schema 1",
        "delivered     2",  # both by the log: it writes whatever `deliver` says
        "printed       1",
    ):
        assert part in done.out
    assert "\x1b[" not in done.out
    assert list(tmp_path.iterdir()) == []


def test_colours_when_asked(tmp_path):
    done = run("demo", cwd=tmp_path, env={"FORCE_COLOR": "1"})
    assert done.code == 0, done.err
    assert "\x1b[" in done.out
