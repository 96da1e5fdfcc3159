"""What the first word of an error answer says: not now, or not until somebody acts; and what is no more than a courtesy."""

import pytest
import redis.exceptions as failures
from redis._parsers.base import BaseParser

from router.broker.server import answers, client
from router.errors import ConfigError, UnavailableError

TEMPORARY = [
    "LOADING Redis is loading the dataset in memory",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN Hash slot not served",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "NOREPLICAS Not enough good replicas to write.",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "ERR max number of clients reached",
]
LASTING = [
    "BUSYGROUP Consumer Group name already exists",
    "BUSYKEY Target key name already exists.",
    "ERR unknown command 'XREADGROUP', with args beginning with: 'GROUP' ",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "NOPERM User router has no permissions to run the 'xack' command",
    "ERR DB index is out of range",
    "MOVED 1234 127.0.0.1:7001",
]
IN_SCRIPTS = [
    "{} script: f7fb9ed8a79f3ad2ba0c42db5d1e2cb5a3ea3a55, on @user_script:3.",
    "ERR Error running script (call to f_f7fb9ed8a79f3ad2ba0c42db5d1e2cb5a3ea3a55): @user_script:3: -{} ",
    "@user_script: 3: -{}",
]


def error_of(answer):
    """The error as redis-py raises it, without the code where it knows it."""
    return BaseParser.parse_error(answer)


@pytest.mark.parametrize("answer", TEMPORARY)
def test_an_answer_that_says_not_now_is_waited_for(answer):
    assert answers.is_temporary(error_of(answer))
    assert answers.is_temporary(answer)
    assert isinstance(client.explain(error_of(answer), "redis://cache:6379"), UnavailableError)


@pytest.mark.parametrize("answer", LASTING)
def test_an_answer_that_stays_needs_a_person(answer):
    assert not answers.is_temporary(error_of(answer))
    assert not answers.is_temporary(answer)
    assert isinstance(client.explain(error_of(answer), "redis://cache:6379"), ConfigError)


@pytest.mark.parametrize("around", IN_SCRIPTS)
@pytest.mark.parametrize("answer", [TEMPORARY[1], TEMPORARY[4], TEMPORARY[8], LASTING[3], LASTING[4]])
def test_an_answer_to_a_command_of_a_script_is_that_of_the_command(answer, around):
    plain = answers.unwrapped(error_of(around.format(answer)))
    assert type(client.explain(plain, "x")) is type(client.explain(error_of(answer), "x"))
    assert answers.error_text(plain).startswith(answer.rstrip("."))


@pytest.mark.parametrize("answer", [*TEMPORARY, *LASTING])
def test_what_was_said_begins_with_its_code(answer):
    assert answers.error_text(error_of(answer)) in (answer.strip(), answer.strip().removeprefix("ERR "))


def test_an_error_that_is_no_answer_stays_what_it_is():
    broken = failures.ConnectionError("Connection closed by server.")
    assert answers.unwrapped(broken) is broken
    assert answers.error_text(broken) == "Connection closed by server."
