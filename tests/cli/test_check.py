"""`event-router check`: verdicts, exit codes, the summary, and that it needs nothing."""

import contextlib
import json
import re
import resource
import socket
import subprocess
import sys
import threading

import pytest

from router.cli.operate import durability_warnings
from router.ops.loading import load
from tests.support.process import ROOT, environment, run
from tests.support.waiting import PATIENCE

MANY_KEYS = """\
version: 1
redis: {url: "redis://127.0.0.1:1"}
sources:
  web: {type: pubsub, channels: [a]}
sinks:
  audit: {type: log, pth: audit.jsonl}
routes:
  - {id: all, sinks: [audit]}
"""
UNKNOWN_KEY = "version: 1\nsources:\n  web: {type: pubsub, chanels: [a]}\n"


def test_a_good_file_is_ok_and_says_what_it_does(folder):
    done = run("check", "config.yaml", cwd=folder, env={"REDIS_URL": "redis://u:s3cret@h:6379"})
    assert done.code == 0, done.out + done.err
    assert "config.yaml: ok" in done.out
    assert "at most once" in done.out
    assert "everything: every event -> audit" in done.out
    assert f"writes {folder}/audit.jsonl" in done.out
    assert "redis://h:6379" in done.out
    assert "s3cret" not in done.out
    assert done.err == ""


def test_more_warnings_than_it_shows_are_no_error(tmp_path):
    routes = "".join(f"  - {{id: r{n}, channels: [c{n}], sinks: [audit]}}\n" for n in range(250))
    good = MANY_KEYS.replace("pth", "path")
    (tmp_path / "config.yaml").write_text(good + routes)
    done = run("check", "--json", "--strict", "config.yaml", cwd=tmp_path)
    assert done.code == 1, done
    problems = [each for each in json.loads(done.out)[0]["problems"] if each["severity"] != "note"]
    assert {each["severity"] for each in problems} == {"warning"}
    assert len(problems) == 201
    more = re.fullmatch(r"and (\d+) more warnings(, \d+ more notes?)?", problems[-1]["message"])
    said = run("check", "config.yaml", cwd=tmp_path).out
    assert f"config.yaml: ok, {200 + int(more[1])} warnings" in said, "those that are not shown count too"


def test_it_says_which_routes_have_conditions(folder):
    path = folder / "config.yaml"
    conditions = 'match: {severity: high}, when: "payload.total > 100"'
    path.write_text(path.read_text() + f"  - {{id: urgent, channels: [notification], {conditions}, sinks: [audit]}}\n")
    done = run("check", "config.yaml", cwd=folder)
    assert "urgent: notification with match and when -> audit" in done.out
    assert "source shell" not in done.out + done.err
    told = json.loads(run("check", "--json", "config.yaml", cwd=folder).out)[0]["summary"]["routes"]
    assert [(route["match"], route["when"]) for route in told] == [(False, False), (True, True)]


def test_a_condition_on_fields_of_texts_is_a_warning(folder):
    path = folder / "config.yaml"
    path.write_text(path.read_text() + "  - {id: urgent, match: {severity: high}, sinks: [audit]}\n")
    done = run("check", "config.yaml", cwd=folder)
    assert "routes[1].match: the events of source shell are plain text, which has no fields to match" in done.out
    path.write_text(path.read_text().replace("id: urgent,", "id: urgent, sources: [web-app],"))
    assert "source shell" not in run("check", "config.yaml", cwd=folder).out


def test_the_example_is_ok_from_anywhere(tmp_path):
    done = run("check", ROOT / "config.example.yaml", cwd=tmp_path)
    assert done.code == 0, done.out
    assert "deliver   print" in done.out


def test_it_needs_no_variable_for_a_url(folder):
    done = run("check", cwd=folder)
    assert done.code == 0, done.out
    assert "REDIS_URL" in done.out
    assert "[note]" in done.out


def test_faults_are_78_with_place_and_cure(tmp_path):
    (tmp_path / "bad.yaml").write_text(UNKNOWN_KEY)
    done = run("check", "bad.yaml", cwd=tmp_path)
    assert done.code == 78
    assert 'bad.yaml:3:23: sources.web.chanels: unknown key "chanels"' in done.out
    assert "did you mean `channels`?" in done.out
    assert "bad.yaml: can't work" in done.out


def test_the_faulty_line_stands_below_with_a_caret_in_text_and_in_json(tmp_path):
    (tmp_path / "bad.yaml").write_text(UNKNOWN_KEY)
    done = run("check", "bad.yaml", cwd=tmp_path)
    lines = done.out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("bad.yaml:3:23: ")]
    assert lines[at + 1 : at + 3] == ["  3 |   web: {type: pubsub, chanels: [a]}", "    | " + " " * 22 + "^"]
    (document,) = json.loads(run("check", "bad.yaml", "--json", cwd=tmp_path).out)
    for problem in document["problems"]:
        line, caret = problem["excerpt"].split("\n")
        assert line == UNKNOWN_KEY.split("\n")[problem["line"] - 1]
        assert caret == " " * (problem["column"] - 1) + "^"


def test_of_many_keys_the_near_ones_are_named_and_all_with_verbose(tmp_path):
    (tmp_path / "bad.yaml").write_text(MANY_KEYS)
    for command in (["check", "bad.yaml"], ["run", "-c", "bad.yaml"], ["dlq", "list", "-c", "bad.yaml"]):
        done = run(*command, cwd=tmp_path)
        assert done.code == 78
        said = done.out + done.err
        assert re.search(
            r"did you mean `path`\?\); \d+ others are allowed; `check --verbose` lists all of them\n", said
        )
        assert "fallback" not in said
    for command in (["check", "bad.yaml", "--verbose"], ["run", "-c", "bad.yaml", "--verbose"]):
        done = run(*command, cwd=tmp_path)
        assert "fallback" in done.out + done.err
    assert "fallback" in run("check", "bad.yaml", "--json", cwd=tmp_path).out


def test_a_missing_file_is_78(tmp_path):
    done = run("check", "nowhere.yaml", cwd=tmp_path)
    assert done.code == 78
    assert "nowhere.yaml" in done.out


def test_several_files_are_all_checked(folder):
    (folder / "bad.yaml").write_text(UNKNOWN_KEY)
    done = run("check", "config.yaml", "bad.yaml", "nowhere.yaml", cwd=folder)
    assert done.code == 78
    for part in ("config.yaml: ok", "bad.yaml: can't work", "nowhere.yaml: can't work"):
        assert part in done.out


def test_json(folder):
    (folder / "bad.yaml").write_text(UNKNOWN_KEY)
    done = run("check", "--json", "config.yaml", "bad.yaml", cwd=folder)
    assert done.code == 78
    good, bad = json.loads(done.out)
    assert (good["file"], good["ok"], bad["ok"], bad["summary"]) == ("config.yaml", True, False, None)
    assert good["summary"]["sinks"]["audit"]["path"] == str(folder / "audit.jsonl")
    assert good["summary"]["sinks"]["audit"]["writable"] is True
    assert good["summary"]["sources"]["shell"]["channels"] == ["command"]
    problem = next(each for each in bad["problems"] if each["path"] == "sources.web.chanels")
    assert (problem["severity"], problem["file"], problem["line"], problem["column"]) == ("error", "bad.yaml", 3, 23)


WITHOUT_RIGHTS = """\
import ctypes, os, sys
for right in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root reads and writes whatever the modes say
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, right, 0, 0, 0):  # PR_CAPBSET_DROP, of what is executed next
        sys.exit(99)
os.execv(sys.executable, [sys.executable, "-m", "router.cli.main", *sys.argv[1:]])
"""


def check_without_rights(folder, *arguments):
    """Run `check` as somebody for whom the modes of files count, root too."""
    command = [sys.executable, "-c", WITHOUT_RIGHTS, "check", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode == 99:
        pytest.skip("root can't give up its rights here")
    return done


LOG = "version: 1\nsources:\n  web: {type: pubsub, channels: [a]}\nroutes:\n  - {id: all, sinks: [audit]}\nsinks:\n"


@pytest.mark.parametrize(
    ("path", "severity", "said", "writable"),
    [
        (
            "locked/audit.jsonl",
            "warning",
            "this user has no permission to create files in {}/locked; to see who has permission, run: ls -ld",
            False,
        ),
        (
            "theirs.jsonl",
            "warning",
            "this user has no permission to write {}/theirs.jsonl; to see who has permission, run: ls -ld",
            False,
        ),
        ("locked", "warning", "the sink can't write {}/locked, which is a folder", False),
        ("theirs.jsonl/audit.jsonl", "warning", "{}/theirs.jsonl is not a folder", False),
        (
            "locked/new/x.jsonl",
            "warning",
            "there is no folder {}/locked/new that this user can see, and this user has no permission to",
            False,
        ),
        (
            "closed/new/x.jsonl",
            "warning",
            "there is no folder {}/closed/new that this user can see, and this user has no permission to",
            False,
        ),
        (
            "free/new/x.jsonl",
            "note",
            "there is no folder {}/free/new that this user can see; the router creates it",
            True,
        ),
        (
            "free/new/newer/x.jsonl",
            "note",
            "the router creates only the last folder of a path; run: mkdir -p {}/free/new/newer",
            False,
        ),
        ("free/audit.jsonl", None, None, True),
    ],
)
def test_a_log_that_this_user_may_not_write_is_a_warning(folder, path, severity, said, writable):
    for name, mode in (("locked", 0o555), ("closed", 0o000), ("free", 0o777)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    (folder / "theirs.jsonl").touch()
    (folder / "theirs.jsonl").chmod(0o444)
    (folder / "config.yaml").write_text(f"{LOG}  audit: {{type: log, path: {path}}}\n")
    done = check_without_rights(folder, "--strict", "--json")
    (report,) = json.loads(done.stdout)
    found = [each for each in report["problems"] if each["path"] == "sinks.audit"]
    assert done.returncode == (severity == "warning"), done.stdout + done.stderr
    assert [(each["severity"], each["line"]) for each in found] == ([(severity, 7)] if severity else [])
    assert all(said.format(folder) in each["message"] for each in found)
    assert report["summary"]["sinks"]["audit"]["writable"] is writable
    told = check_without_rights(folder).stdout
    assert (f", but {report['summary']['sinks']['audit']['reason']}\n" in told) is not writable
    (folder / "closed").chmod(0o700)


def test_a_socket_of_a_log_that_can_not_be_written_is_said(folder):
    """The socket of a service may be away, another thing than a socket, or one that this user may not use."""
    sinks = {"good": "there", "away": "away", "file": "file", "theirs": "theirs"}
    with contextlib.ExitStack() as opened:
        for name in ("there", "theirs"):
            opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(str(folder / name))
        (folder / "theirs").chmod(0o400)
        (folder / "there").chmod(0o666)
        (folder / "file").touch()
        lines = [f"  {name}: {{type: log, target: syslog, socket: {folder}/{at}}}\n" for name, at in sinks.items()]
        config = LOG.replace("sinks: [audit]", "sinks: [good, away, file, theirs]")
        (folder / "config.yaml").write_text(config + "".join(lines))
        done = check_without_rights(folder, "--json")
    (report,) = json.loads(done.stdout)
    found = [(each["path"], each["severity"], each["message"]) for each in report["problems"]]
    assert found == [
        (
            "sinks.away",
            "note",
            f"there is no socket {folder}/away that this user can see, so deliveries would wait until a service listens there",
        ),
        ("sinks.file", "warning", f"{folder}/file is not a socket"),
        (
            "sinks.theirs",
            "warning",
            f"this user has no permission to write to the socket {folder}/theirs; to see who has permission, run: ls -ld {folder}/theirs",
        ),
    ]
    told = {name: (sink["socket"], sink["writable"]) for name, sink in report["summary"]["sinks"].items()}
    assert told == {name: (f"{folder}/{at}", name == "good") for name, at in sinks.items()}
    shown = check_without_rights(folder).stdout
    assert f"writes to the socket {folder}/there\n" in shown
    for name, reason in (
        ("away", "there is no such socket that this user can see"),
        ("file", "that is not a socket"),
        ("theirs", "this user has no permission to write to it"),
    ):
        assert f"writes to the socket {folder}/{name}, but {reason}\n" in shown


def test_a_file_in_the_way_of_a_log_is_said(folder):
    (folder / "file").write_text("")
    done = run("check", cwd=folder, env={"LOGS_DIRECTORY": str(folder / "file")})
    assert f"{folder}/file/audit.jsonl, but {folder}/file is not a folder" in done.out


def test_a_log_makes_one_folder_and_not_two(folder):
    for place, may in (("new", True), ("new/newer", False)):
        done = run("check", cwd=folder, env={"LOGS_DIRECTORY": str(folder / place)})
        assert f"{folder}/{place}/audit.jsonl" in done.out
        assert (", but there is no folder" not in done.out) is may


def test_only_strict_objects_to_warnings(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("sinks:\n", "sinks:\n  unused: {type: log, path: x}\n", 1))
    lenient, strict = run("check", cwd=folder), run("check", "--strict", cwd=folder)
    assert "[warning]" in lenient.out
    assert (lenient.code, strict.code) == (0, 1)
    (folder / "config.yaml").write_text(text)
    assert run("check", "--strict", cwd=folder).code == 0


def test_an_env_file_gives_variables(folder):
    (folder / "env").write_text("REDIS_URL=redis://from-env-file:1\n")
    done = run("check", "--env-file", "env", cwd=folder)
    assert "redis://from-env-file:1" in done.out
    done = run("check", "--env-file", "nowhere", cwd=folder)
    assert done.code == 78
    assert "nowhere" in done.out


def processor_time(command):
    """The processor time in seconds that a command takes which runs in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


LIBRARIES = (
    "import aiosmtplib, click, jinja2.sandbox, jsonschema_rs, msgspec, pluggy, pydantic, yaml; pydantic.BaseModel"
)


def test_it_answers_at_once(folder):
    """Half a second of processor time; on a slow or busy machine, no more than twice what its libraries' import takes."""
    took, libraries = [], []
    for _ in range(9):
        took.append(processor_time(lambda: run("check", cwd=folder, fresh=True)))
        libraries.append(processor_time(lambda: subprocess.run([sys.executable, "-c", LIBRARIES], check=True)))
        if min(took) < max(0.5, 2 * min(libraries)):
            return
    raise AssertionError((took, libraries))


NOT_NEEDED = {"aiohttp", "redis", "uvloop", "jsonschema", "rich", "structlog"}


def imported(folder, url):
    """Those of `NOT_NEEDED` that `check` imports."""
    script = (
        "import sys\nfrom router.cli.main import main\ntry:\n    main(['check', 'config.yaml'])\n"
        "except SystemExit as ended:\n    print(ended.code, *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment(folder, {"REDIS_URL": url}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    code, *modules = done.stderr.split()
    assert code == "0"
    return NOT_NEEDED & set(modules)


@pytest.mark.parametrize("url", ["embedded", "redis://localhost:6379"])
def test_it_imports_nothing_that_it_does_not_need(folder, url):
    assert not imported(folder, url)


def test_it_imports_the_client_alone_where_a_redis_holds_queues(folder, server):
    queue_in_redis(folder)
    assert imported(folder, server.url) == {"redis"}


# The Redis that holds the queues, where it answers.

LOST, EVICTED = (
    "Redis may lose the queues when it restarts",
    "set maxmemory-policy to noeviction instead of allkeys-lru",
)


def queue_in_redis(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("path: audit.jsonl}", "path: audit.jsonl, queue: redis}"))


def test_a_redis_that_may_lose_its_queues_is_a_warning(folder, redis_server):
    queue_in_redis(folder)
    redis_server.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    env = {"REDIS_URL": redis_server.url}
    lenient, strict = run("check", cwd=folder, env=env), run("check", "--strict", "--json", cwd=folder, env=env)
    assert (lenient.code, strict.code) == (0, 1)
    assert f"config.yaml: redis.url: {LOST}" in lenient.out
    assert EVICTED in lenient.out
    assert "ok, 2 warnings" in lenient.out
    (report,) = json.loads(strict.out)
    assert [(each["severity"], each["path"]) for each in report["problems"]] == [("warning", "redis.url")] * 2
    redis_server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis_server.do("CONFIG", "SET", "appendonly", "yes")
    assert run("check", "--strict", cwd=folder, env=env).code == 0


def test_a_redis_that_holds_no_queue_is_not_asked(folder, server):
    env = {"REDIS_URL": server.url}
    assert run("check", "--strict", cwd=folder, env=env).code == 0
    queue_in_redis(folder)
    assert run("check", "--strict", cwd=folder, env=env).code == 1
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "deliver: print\n")
    assert run("check", "--strict", cwd=folder, env=env).code == 0


@pytest.mark.parametrize("answer", [None, "refused", "silence", "nonsense", "password"])
def test_one_that_does_not_tell_at_once_is_passed_over(folder, server, answer):
    queue_in_redis(folder)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        if answer == "silence":
            listener.listen()
        if answer == "nonsense":
            listener.listen()
            threading.Thread(target=babble, args=(listener,), daemon=True).start()
        if answer == "password":
            server.do("CONFIG", "SET", "requirepass", "x")
            url = server.url
        done = run("check", "--strict", cwd=folder, env={} if answer is None else {"REDIS_URL": url})
    assert (done.code, done.err) == (0, "")
    assert "warning" not in done.out


def babble(listener):
    with contextlib.suppress(OSError):
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_it_does_not_wait_for_a_server_that_is_silent(folder, monkeypatch):
    """Not even for a name that can't be looked up, which knows no limit of its own: if it did, it would for ever."""
    queue_in_redis(folder)
    asked, over = threading.Event(), threading.Event()

    def endless(*_, **__):
        asked.set()
        over.wait()

    monkeypatch.setattr(socket, "getaddrinfo", endless)
    loaded = load(folder / "config.yaml", environ={"REDIS_URL": "redis://nobody.example:6379"})
    assert durability_warnings.problems(loaded) == []
    assert asked.is_set()
    over.set()


# What a power cut takes.


@pytest.mark.parametrize(
    ("redis", "path", "said"),
    [
        ("redis: {url: embedded}", "redis.appendfsync", "the last second"),
        ("redis: {url: embedded, appendfsync: everysec}", "redis.appendfsync", "the last second"),
        ("redis: {url: embedded, appendfsync: always}", None, None),
        ("redis: {url: URL}", "redis.url", "the last second"),
        (
            "redis: {url: URL, appendfsync: always}",
            "redis.appendfsync",
            "has no effect, because the router does not use the embedded server",
        ),
    ],
)
def test_what_a_power_cut_takes_is_a_note(folder, server, redis, path, said):
    server.do("CONFIG", "SET", "appendonly", "yes")
    server.do("CONFIG", "SET", "appendfsync", "always" if said and "embedded" in said else "everysec")
    queue_in_redis(folder)
    lines = (folder / "config.yaml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("redis:")]
    (folder / "config.yaml").write_text("\n".join([*kept, redis.replace("URL", server.url), ""]))
    done = run("check", "--strict", "--json", cwd=folder)
    assert done.code == 0
    (report,) = json.loads(done.out)
    found = [(each["severity"], each["path"]) for each in report["problems"]]
    assert found == ([("note", path)] if path else [])
    assert all(said in each["message"] for each in report["problems"])


def test_streams_of_the_same_redis_lose_nothing_that_it_has_not_lost_itself(folder, server):
    queue_in_redis(folder)
    text = (folder / "config.yaml").read_text()
    text = re.sub(r"type: pubsub, channels: \[[^]]*\]", "type: stream, streams: [notification]", text)
    (folder / "config.yaml").write_text(text)
    server.do("CONFIG", "SET", "appendonly", "yes")
    (report,) = json.loads(run("check", "--json", cwd=folder, env={"REDIS_URL": server.url}).out)
    assert [each for each in report["problems"] if each["path"] == "redis.url"] == []
