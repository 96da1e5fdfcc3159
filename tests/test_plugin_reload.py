"""A changed drop-in: a reload takes the new code, deliveries under way finish on the old one, and a faulty one changes nothing."""

import asyncio
import json

from tests.support.daemon import daemon
from tests.support.process import run

NOTE = """
import asyncio
from pathlib import Path
from router.api import hookimpl

async def deliver(event, options):
    number = event.payload["n"]
    with Path("began").open("a") as file:
        file.write(f"note {number}\\n")
    while Path("hold").exists():
        await asyncio.sleep(0.01)
    with Path("note").open("a") as file:
        file.write(f"old {number}\\n")

@hookimpl
def register_sinks(register):
    register("note", deliver)
"""

# A folder whose code imports a module only after the reload.
TEAM = {
    "__init__.py": "from .sink import register_sinks\n",
    "sink.py": NOTE.replace("note", "team").replace("old {number}", "{word()} {number}").replace(
        '    with Path("team")', '    from .words import word\n    with Path("team")'
    ),
    "words.py": "def word():\n    return 'old'\n",
}  # fmt: skip

# A plain function in a process: the second delivery starts a second process.
APART = (
    NOTE.replace("note", "apart")
    .replace("import asyncio", "import time")
    .replace("async def", "def")
    .replace("await asyncio", "time")
    .replace("deliver)", 'deliver, execution="process")')
)
SINKS = ("note", "team", "apart")
CONFIG = {
    "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
    "sinks": {name: {"type": name, "queue": "memory", "timeout": "1m"} for name in SINKS},
    "routes": [{"id": "all", "sinks": list(SINKS)}],
}


def lines(router, name):
    file = router.folder / name
    return sorted(file.read_text().splitlines()) if file.exists() else []


async def reload(router):
    """The answer of the command, and its exit code."""
    done = await asyncio.to_thread(run, "reload", "--json", "-c", router.folder / "config.yaml", cwd=router.folder)
    return json.loads(done.out), done.code


async def test_deliveries_under_way_finish_on_the_old_code(redis_server, tmp_path):
    plugins = tmp_path / "plugins"
    (plugins / "team").mkdir(parents=True)
    (plugins / "note.py").write_text(NOTE)
    (plugins / "apart.py").write_text(APART)
    for name, text in TEAM.items():
        (plugins / "team" / name).write_text(text)
    (tmp_path / "hold").touch()
    async with daemon(redis_server, tmp_path, CONFIG) as router:
        router.publish("a", {"n": 1})
        await router.until(lambda: lines(router, "began") == ["apart 1", "note 1", "team 1"])

        (plugins / "note.py").write_text(NOTE.replace("def deliver(", "def deliver(("))
        (plugins / "apart.py").write_text(APART.replace("old", "new"))
        (plugins / "team" / "words.py").write_text(TEAM["words.py"].replace("old", "new"))
        refused, code = await reload(router)
        assert (refused["ok"], code) == (False, 78)
        told = [problem["message"] for problem in refused["problems"]]
        assert any(f"{plugins}/note.py" in text and "SyntaxError" in text and "line 6" in text for text in told), told

        router.publish("a", {"n": 2})
        await router.until(lambda: len(lines(router, "began")) == 6)
        (plugins / "note.py").write_text(NOTE.replace("old", "new"))
        taken, code = await reload(router)
        assert (taken["ok"], code, sorted(taken["changed"]["sinks"]["changed"])) == (True, 0, sorted(SINKS))
        router.publish("a", {"n": 3})
        assert lines(router, "note") == lines(router, "team") == lines(router, "apart") == []

        (tmp_path / "hold").unlink()
        for sink in SINKS:
            await router.until(lambda sink=sink: lines(router, sink) == ["new 3", "old 1", "old 2"], sink)
        await router.stop()
    assert router.closing()["delivered"] == 9


FINALIZED = """
import weakref
from pathlib import Path
from router.api import SinkOptions, hookimpl

def write(word):
    with Path("history").open("a") as file:
        file.write(f"{word}\\n")

write("imported")

class NoteOptions(SinkOptions):
    text: str

class Note:
    def __init__(self, options):
        self.itself = self
        weakref.finalize(self, write, f"freed {options.text}").atexit = False

    async def deliver(self, event, context):
        pass

@hookimpl
def register_sinks(register):
    register("note", Note, options=NoteOptions)
"""


async def test_a_reload_frees_replaced_sinks_and_imports_only_changed_files(redis_server, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "note.py").write_text(FINALIZED)
    config = {
        "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
        "sinks": {"note": {"type": "note", "text": "1", "queue": "memory"}},
        "routes": [{"id": "all", "sinks": ["note"]}],
    }
    expected = ["imported"]

    async def replaced(router):
        """Reload, and wait until the old sink is freed."""
        taken, code = await reload(router)
        assert (code, taken["changed"]["sinks"]["changed"]) == (0, ["note"])
        await router.until(lambda: sorted(lines(router, "history")) == sorted(expected), expected)

    async with daemon(redis_server, tmp_path, config) as router:
        for number in range(1, 5):
            file = router.folder / "config.yaml"
            file.write_text(file.read_text().replace(f'"text": "{number}"', f'"text": "{number + 1}"'))
            if number > 1:  # the objects from the start are never collected
                expected.append(f"freed {number}")
            await replaced(router)
        (plugins / "note.py").write_text(f"{FINALIZED}\n# changed\n")
        expected.extend(("imported", "freed 5"))
        await replaced(router)
        await router.stop()
