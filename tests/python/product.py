"""Starts `turnstream dev` as a person would, and checks that all its child processes end with it."""

import os
import queue
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
# Names that would change what `dev` does; the tests want its defaults: the demo model, a NATS of its own.
FOREIGN_NAMES = ("SMOOTH_", "SMOOAI_", "AUTH_", "WIDGET_", "NATS_")
# The program's lines on stdout when it is ready, and the attribute for each address.
READY_LINES = {"listening on ": "http", "nats ": "nats", "calls of tools are signed; public key ": "call_key"}


@dataclass(frozen=True)
class Product:
    """Addresses of a running product."""

    http: str
    nats: str
    call_key: str

    @property
    def ws(self):
        return f"ws://{urlsplit(self.http).netloc}/ws"


@contextmanager
def start_product(binary, store, log, more=None):
    """Yields the addresses (`more` is set in the program's environment); on leaving, stops the program with SIGTERM and checks that no process is left."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [binary, "dev", "--port", "0", "--store", store],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**_environment(), **(more or {})},
            start_new_session=True,
        )
    try:
        product = _wait_until_ready(process, log)
        yield product
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_TIMEOUT_S)
        assert code == 0, f"the program ended with {code} after SIGTERM, see {log}"
        for address in (product.http, product.nats):
            assert not _is_open(address), f"{address} still answers after the program ended"
    finally:
        # The session is the program's own, so this ends only the program and its children.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_NAMES)}
    if "NATS_SERVER" in os.environ:
        kept["NATS_SERVER"] = os.environ["NATS_SERVER"]
    return kept


def _wait_until_ready(process, log):
    # A thread reads to the end, so that a full pipe can never stop the program.
    lines = queue.Queue()
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    found = {}
    deadline = time.monotonic() + START_TIMEOUT_S
    while len(found) < len(READY_LINES):
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"not ready after {START_TIMEOUT_S} s: {_end_of(log)}") from None
        if line is None:
            raise AssertionError(f"the program ended with {process.wait()} before it was ready: {_end_of(log)}")
        for start, name in READY_LINES.items():
            if line.startswith(start):
                found[name] = line.removeprefix(start).strip().rstrip("/")
    return Product(**found)


def _read_lines(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)


def _end_of(log):
    return log.read_text(errors="replace")[-2000:]


def _is_open(address):
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=1).close()
    except OSError:
        return False
    return True
