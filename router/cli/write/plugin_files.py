"""The files that `event-router new-plugin` writes: a drop-in with its test, or a package; floor 7, pure."""

from __future__ import annotations

from string import Template

Files = dict[str, str]
"""The texts of files by their paths, in the order of writing."""

_SINK = '''\
"""The sink `$name`: posts each message as JSON to a URL.

The sink works as it is. Change `Options` and `deliver` to what your service needs. The test of this plugin shows
whether the sink still follows the rules of the router. The guide is docs/plugins.md of event-router.
"""

from pydantic import Field, field_validator
from router.api import (
    Addresses,
    Event,
    RegisterSink,
    Secret,
    SinkContext,
    SinkOptions,
    Text,
    check_response,
    hookimpl,
)


class Options(SinkOptions):
    """The keys of the sink in the configuration. `check` refuses unknown keys and wrong types."""

    # A field of a plain type (str, int, bool, …) is used as it is written.
    url: str = Field(description="Where messages are posted.")
    # Addresses and Text may contain templates. The router renders the templates for each delivery, so `deliver` gets
    # plain values.
    # A delivery whose addresses are all empty is suppressed: `deliver` is not called.
    to: Addresses = Field(description="The recipients: a template, or a list.")
    text: Text = Field(default=Text("{{ payload.message }}"), description="The message.")
    # A Secret is shown as *** everywhere. `get_secret_value()` returns its text.
    token: Secret | None = Field(default=None, description="The credential, sent as `Authorization: Bearer …`.")

    # A validator refuses a wrong value when the configuration is checked, instead of at the first event.
    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("https://", "http://")):
            raise ValueError("write the whole URL, such as https://pager.example.org/messages")
        return url


async def deliver(event: Event, options: Options, context: SinkContext) -> str:
    """Deliver one event. If this function returns, the event is delivered. The returned text is logged as the answer.

    The router handles the timeout, retries, the queue and the log. It must know what a failure means, so raise
    `TransientError` (try again later), `PermanentError` (this message never succeeds) or `SinkError` (the whole sink
    fails, not only this message). `check_response` raises the fitting error for an HTTP status.
    """
    headers = {"Idempotency-Key": event.key}  # the same on every attempt, so the service can drop a repeated message
    if options.token is not None:
        headers["Authorization"] = f"Bearer {options.token.get_secret_value()}"
    message = {"to": options.to, "text": options.text}
    response = await context.http.request("POST", options.url, json=message, headers=headers)
    check_response(response, now=context.clock.now())
    return f"HTTP {response.status}"


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register the sink, which a configuration uses by `type: $name`."""
    register("$name", deliver, options=Options)
'''

_TEST_HEAD = '''\
"""Tests of the sink `$name`. They need no Redis and no network: `python -m pytest` runs them."""

import asyncio
$imports
from router.testing import HttpService, RecordingRouter, check_sink

'''

_TEST = '''\

def sink(service: HttpService) -> dict[str, object]:
    """Return the keys of the sink, as in a configuration. The stand-in for the service has a private address."""
    return {
        "type": "$name",
        "url": service.url,
        "to": "{{ payload.user_id }}",
        "token": "a-secret-token",
        "allow_private": True,
    }


def test_it_keeps_the_rules_of_the_router() -> None:
    """Check the rules: failures are raised, no secret is logged, a delivery can be cancelled, and more."""
    with HttpService() as service:
        report = asyncio.run(check_sink("$name", sink(service), service=service$plugins))
    report.raise_for_failures()  # `print(report)` shows every check


def test_the_service_gets_what_the_event_says() -> None:
    """Send an event through a whole configuration. The stand-in for the service records the request."""

    async def publish(service: HttpService) -> None:
        config = {
            "version": 1,
            "sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}},
            "sinks": {"$name": sink(service)},
            "routes": [{"id": "all", "sinks": ["$name"]}],
        }
        async with RecordingRouter(config, call=["$name"]$plugins) as router:
            router.publish("notification", {"user_id": 42, "message": "It is on its way."})
            await router.settled()

    with HttpService() as service:
        asyncio.run(publish(service))
    [request] = service.requests
    assert request.json() == {"to": ["42"], "text": "It is on its way."}
    assert request.headers["Authorization"] == "Bearer a-secret-token"
'''

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "event-router-$name"
version = "0.1.0"
description = "The sink $name for event-router"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["event-router>=$version"]

[project.optional-dependencies]
test = ["pytest>=8"]

# event-router finds the plugin by this entry if both are installed in the same environment.
[project.entry-points.event_router]
$name = "$package"

[tool.hatch.build.targets.wheel]
packages = ["src/$package"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

_README = """\
# event-router-$name

The sink `$name` for event-router: posts each message as JSON to a URL.

```yaml
sinks:
  $name: {type: $name, url: "https://$name.example.org/messages", to: "{{ payload.user_id }}"}
```

The command `plugins $name` of event-router lists its options. To work on the plugin, in this folder:

```sh
pip install -e '.[test]'
python -m pytest
```
"""


def drop_in(name: str) -> Files:
    """Return a drop-in for a sink of this type, and its test beside the folder of drop-ins."""
    return {drop_in_path(name): _filled(_SINK, name), test_path(name): _tests(name, drop_in=True)}


def drop_in_path(name: str) -> str:
    """Return the path of a drop-in, relative to the folder of the configuration."""
    return f"plugins/{module(name)}.py"


def test_path(name: str) -> str:
    """Return the path of the test of a plugin, relative to the folder that the files are written to."""
    return f"test_{module(name)}.py"


def package(name: str, version: str) -> Files:
    """Return a project for pip with a sink of this type, and its test.

    `version` is the oldest version of event-router with which the plugin works.
    """
    source = f"src/{package_module(name)}"
    return {
        "pyproject.toml": _filled(_PROJECT, name, version=version),
        "README.md": _filled(_README, name),
        f"{source}/__init__.py": _filled(_SINK, name),
        f"{source}/py.typed": "",
        f"tests/{test_path(name)}": _tests(name, drop_in=False),
    }


def module(name: str) -> str:
    """Return the name of the module for a type of sink."""
    return name.replace("-", "_")


def package_module(name: str) -> str:
    """Return the name of the module for a type of sink that has a package of its own."""
    return f"event_router_{module(name)}"


def _tests(name: str, *, drop_in: bool) -> str:
    if not drop_in:
        return _filled(_TEST_HEAD + _TEST, name, imports="", plugins="")
    head = _filled(_TEST_HEAD, name, imports="from pathlib import Path\n")
    return f'{head}PLUGINS = Path(__file__).parent / "plugins"\n\n{_filled(_TEST, name, plugins=", plugins=PLUGINS")}'


def _filled(text: str, name: str, **values: str) -> str:
    return Template(text).substitute(values, name=name, package=package_module(name))
