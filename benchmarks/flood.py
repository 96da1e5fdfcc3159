"""The program that publishes numbered notifications in a flood: `python flood.py PORT FIRST COUNT`.

The program prepares all commands, prints an empty line, and waits for a line on its standard input. Then it publishes
as fast as the server accepts the commands. It ends when the server has executed all commands.
"""

from __future__ import annotations

import socket
import sys


def command(number: int) -> bytes:
    """Return the command that publishes the notification with this number, which has 90 bytes."""
    body = b'{"event": "signup", "message": "user %d signed up", "user_id": %d, "severity": "low"}' % (
        number,
        number + 1,
    )
    return b"*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n$%d\r\n%b\r\n" % (len(body), body)


def main(port: int, first: int, count: int) -> None:
    """Publish `count` notifications, numbered from `first`."""
    flood = b"".join(map(command, range(first, first + count)))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        print(flush=True)
        sys.stdin.readline()
        connection.sendall(b"CLIENT REPLY OFF\r\n")
        connection.sendall(flood)
        connection.sendall(b"CLIENT REPLY ON\r\n")
        connection.recv(100)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
