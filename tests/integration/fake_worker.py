"""Stands for a worker: ready at once, and able to be told to fail or to ignore being stopped. Run as a program."""

import argparse
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Ready(BaseHTTPRequestHandler):
    """Answers every GET with 200."""

    def do_GET(self) -> None:
        """Say that all is well."""
        self.send_response(200)
        self.end_headers()


def main() -> None:
    """Do what the environment says, then be a worker until stopped."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("command")
    arguments.add_argument("--role")
    arguments.add_argument("--web-port", type=int)
    given = arguments.parse_args()
    if os.environ.get("FAKE_WORKER") == "fail" and given.role == "sink":
        sys.exit("error: the schema is of another version than this program")
    stubborn = os.environ.get("FAKE_WORKER") == "stubborn"
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else lambda *_: sys.exit(0))
    print(os.environ["KAFKA_BOOTSTRAP_SERVERS"], os.environ["DATABASE_URL"], flush=True)
    Path(os.environ["EARLY_KILL_READY_FILE"]).touch()
    if given.web_port is None:
        while True:
            time.sleep(1)
    HTTPServer(("127.0.0.1", given.web_port), Ready).serve_forever()


if __name__ == "__main__":
    main()
