"""`event-router send-test`; floor 7."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from router.cli.common import (
    config_option,
    env_file_option,
    json_option,
    leave_threads_behind,
    load_config,
    log_level_option,
    print_json,
)
from router.errors import Exit

if TYPE_CHECKING:
    from router.engine.trial_delivery import Trial
    from router.events import Event
    from router.ops.loading import Loaded
    from router.ops.logs import Logs


@click.command("send-test")
@click.argument("sink")
@click.option("--to", metavar="ADDRESS", help="Send to this recipient instead of the configured recipients.")
@click.option(
    "--payload",
    "payload",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="The file with the payload of the event; `-` is stdin. Default: a sample.",
)
@click.option(
    "--channel",
    metavar="CHANNEL",
    help="The channel of the event. Default: a channel from which a route leads to SINK.",
)
@log_level_option
@json_option
@config_option
@env_file_option
def send_test(
    sink: str,
    *,
    to: str | None,
    payload: Path | None,
    channel: str | None,
    log_level: str,
    as_json: bool,
    config: Path | None,
    env_file: Path | None,
) -> int:
    """Send a test message to SINK, a sink of the configuration, and show the answer of the service.

    The message is real: the command makes one attempt in its own process, with the options of the sink. Texts that
    people read begin with "[test]". The command sends even under `deliver: print`. Under `deliver: {only: …}`, it sends
    only to the addresses that this option allows. No router needs to run, and nothing is queued, retried, counted or
    stored. The exit code is 0 if the message was delivered, else 1.
    """
    from router.cli.write import trial_report
    from router.engine.life.event_loop import run_to_end
    from router.ops import logs

    before = threading.enumerate()
    active = logs.configure(level=log_level)
    try:
        loaded = _loaded(config, env_file, sink, to)
        active.hide(loaded.secrets)
        event = _event(loaded, sink, payload, channel)
        trial = run_to_end(_sent(loaded, sink, event, active))
        active.flush()
        report = trial_report.Report(loaded, sink, event, trial, sample=payload is None, redact=active.redactor)
        if as_json:
            print_json(report.document())
        else:
            report.show()
    finally:
        active.flush()
    code = Exit.OK if trial.delivered else Exit.FINDINGS
    sys.stdout.flush()
    leave_threads_behind(code, active, before)
    if trial.attempt is not None and trial.attempt.abandoned:
        os._exit(code)  # the interpreter would otherwise print a warning about the call's task at exit
    return code


def _loaded(config: Path | None, env_file: Path | None, sink: str, to: str | None) -> Loaded:
    """Load the configuration; with `to`, replace the recipients of the sink."""
    from router.core.rendering import TemplateFaults
    from router.engine.trial_delivery import NoRecipientError, with_recipient
    from router.ops.loading.reading.problems import unknown
    from router.options import is_template

    loaded = load_config(config, env_file)
    if sink not in loaded.config.sinks:
        raise click.BadParameter(unknown("sink", sink, loaded.config.sinks), param_hint="SINK")
    if to is None:
        return loaded
    if is_template(to):
        _refuse_recipient("write the address itself, without a template")
    try:
        return with_recipient(loaded, sink, to)
    except NoRecipientError as error:
        _refuse_recipient(str(error))
    except TemplateFaults as error:
        _refuse_recipient("; ".join(fault.message for fault in error.faults))


def _refuse_recipient(why: str) -> NoReturn:
    raise click.BadParameter(why, param_hint="--to")


def _event(loaded: Loaded, sink: str, payload: Path | None, channel: str | None) -> Event:
    """Return the event of the message. Raises `click.UsageError` if a sample would decide where the message goes."""
    from router.cli.write.trial_event import event_of, place_of
    from router.core.rendering.adjustments import destinations_of_event

    if payload is None:
        keys = destinations_of_event(loaded.config.sinks[sink].options)
        if keys:
            options, listed = "options" if len(keys) > 1 else "option", ", ".join(f"`{key}`" for key in keys)
            or_to = "name a recipient with --to ADDRESS, or " if loaded.templates[sink, None].templated_address else ""
            raise click.UsageError(
                f"the sink {sink} takes its recipient from the event ({options} {listed}), and "
                f"the recipient of a sample event would be invented: {or_to}give an event with --payload FILE"
            )
    return event_of(loaded, sink, place_of(loaded, sink, channel), _raw(payload), time.time())


def _raw(payload: Path | None) -> bytes | None:
    """Return the payload in a file or on stdin, without the newline at its end; None if no file is given."""
    if payload is None:
        return None
    if str(payload) == "-":
        raw = sys.stdin.buffer.read()
    else:
        try:
            raw = payload.read_bytes()
        except OSError as error:
            raise click.BadParameter(f"{payload}: {error.strerror}", param_hint="--payload") from None
    return raw.removesuffix(b"\n").removesuffix(b"\r")


async def _sent(loaded: Loaded, sink: str, event: Event, active: Logs) -> Trial:
    """Send the message. If a plugin blocks the event loop during the attempt, the log names the plugin."""
    from router.cli.common import redis_url
    from router.engine.calling.stall import StallWatch
    from router.engine.clock import SystemClock
    from router.engine.trial_delivery import TrialDelivery
    from router.ops.loading.checking.sinks import url_secrets

    def own_redis() -> str:
        url = redis_url(loaded)
        active.hide({*loaded.secrets, *url_secrets(url)})  # the embedded server's password is in no file
        return url

    watch = StallWatch(loaded.plugins.code)
    watch.start()
    try:
        return await TrialDelivery(sink, loaded, own_redis, SystemClock()).send(event)
    finally:
        watch.stop()
