"""The program that publishes messages at a steady rate: `python steady.py PORT RATE TOTAL`.

Each message contains the time at which the message was sent.
"""

from __future__ import annotations

import json
import socket
import sys
import time

CHANNEL = b"bench"


def main(port: int, rate: int, total: int) -> None:
    """Publish `total` messages, `rate` per second, without waiting for replies."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"CLIENT REPLY OFF\r\n")
        began = time.monotonic()
        for number in range(total):
            wait = began + number / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            told = {"event": "tick", "message": f"{time.time():.6f}", "user_id": number + 1, "severity": "low"}
            body = json.dumps(told).encode()
            connection.sendall(b"*3\r\n$7\r\nPUBLISH\r\n$5\r\n%b\r\n$%d\r\n%b\r\n" % (CHANNEL, len(body), body))
        connection.sendall(b"CLIENT REPLY ON\r\n")
        connection.recv(100)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
