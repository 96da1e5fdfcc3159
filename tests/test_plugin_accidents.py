"""An exception in a plugin's code is told with the file and line where it was raised, and at debug with its traceback."""

import json

import msgspec
import pytest

from router.engine.calling.accidents import error_text
from router.errors import TransientError
from tests.support.daemon import daemon

SECRET = "fictitious-token-12345678"
PLUGIN = """\
import json

from router.api import PartialError, Secret, Sink, SinkOptions, hookimpl


class Options(SinkOptions):
    token: Secret | None = None


def deeper(event):
    return event.payload["missing"]


async def coroutine(event, options):
    deeper(event)


def function(event, options):
    deeper(event)


def leaves(event, options):
    raise SystemExit(3)


async def interrupts(event, options):
    raise KeyboardInterrupt


def finds(event, options):
    next(line for line in [] if line)


class Batch(Sink):
    def __init__(self, options):
        pass

    async def deliver_batch(self, batch):
        results = []
        for event, options in batch:
            try:
                deeper(event)
            except KeyError as error:
                results.append(error)
        return results


async def library(event, options):
    json.loads("{")


async def tells(event, options):
    raise ValueError("the token is " + options.token.get_secret_value() + 2000 * "x")


@hookimpl
def register_sinks(register):
    for sink in (coroutine, function, leaves, interrupts, finds, Batch, library, tells):
        register(sink.__name__, sink, options=Options)
    register("process", function, options=Options, execution="process")
"""
LINES = {name: number for number, line in enumerate(PLUGIN.splitlines(), 1) for name in [line.strip()]}
DEEPER = ("KeyError: 'missing'", LINES['return event.payload["missing"]'])
FAULTS = {
    "coroutine": DEEPER,
    "function": DEEPER,
    "process": DEEPER,
    "Batch": DEEPER,
    "leaves": ("RuntimeError: SystemExit: 3", LINES["raise SystemExit(3)"]),
    "interrupts": ("RuntimeError: KeyboardInterrupt (", LINES["raise KeyboardInterrupt"]),
    "finds": ("RuntimeError: StopIteration (", LINES["next(line for line in [] if line)"]),
    "library": ("JSONDecodeError: Expecting property name", LINES['json.loads("{")']),
    "tells": (
        "ValueError: the token is ***x",
        LINES['raise ValueError("the token is " + options.token.get_secret_value() + 2000 * "x")'],
    ),
}
"""What each sink fails with, and the line of the plugin."""


def setup(folder, file):
    sinks = {name: {"type": name, "retry": {"attempts": 1}, "queue": "memory"} for name in FAULTS}
    sinks["tells"]["token"] = SECRET
    for name, text in ((file, PLUGIN), ("plugins/pager/__init__.py", "from .sinks import register_sinks\n")):
        if (folder / name).parent.name == "plugins" or "pager/" in file:
            (folder / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)
    return {
        "sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}},
        "sinks": sinks,
        "routes": [{"id": "all", "sinks": list(sinks)}],
    }


@pytest.mark.parametrize(("file", "level"), [("plugins/failing.py", "debug"), ("plugins/pager/sinks.py", "info")])
async def test_the_place_is_in_the_log_and_the_letter_and_the_traceback_at_debug(redis_server, tmp_path, file, level):
    config = setup(tmp_path, file)
    async with daemon(redis_server, tmp_path, config, arguments=("--log-level", level)) as router:
        router.publish("notification", {"private": "nobody's business"})
        await router.until(lambda: len(router.letters()) == len(FAULTS))
        await router.stop()
    lines = [json.loads(line) for line in router.process.err.splitlines() if line.startswith("{")]
    given_up = {line["sink"]: line["error"] for line in lines if line["event"] == "delivery given up"}
    traces = {line["sink"]: line["exception"] for line in lines if line["event"] == "the plugin raised an exception"}
    place = "/".join(file.split("/")[-2:])
    for letter in router.letters():
        text, line = FAULTS[letter["sink"]]
        assert letter["detail"].startswith(text)
        assert letter["detail"].endswith(f" ({place}, line {line})")
        assert given_up[letter["sink"]] == letter["detail"]
        if level == "debug":
            trace = traces.pop(letter["sink"])
            assert f'{file}", line {line}, in ' in trace
            assert "router/engine" not in trace
    assert traces == {}
    assert SECRET not in router.process.err
    told = [line for line in lines if line["level"] != "debug"]
    assert "nobody's business" not in json.dumps(told)


@pytest.mark.parametrize("error", [OSError(2, "No such file", "caf\udce9"), TransientError("caf\udce9")])
def test_an_error_can_be_encoded_as_json(error):
    """`status` and the answers of the admin side hold it. A file name that is not UTF-8 has a lone surrogate."""
    text = error_text(error, lambda words: words)
    assert json.loads(msgspec.json.encode(text)) == text
    assert "udce9" in text
