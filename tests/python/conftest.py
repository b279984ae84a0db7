"""Fixtures of all tests: one running product, and coroutines as tests.

The program is $TURNSTREAM_BIN (default: the debug build); it finds its nats-server through $NATS_SERVER or PATH.
"""

import asyncio
import inspect
import os
from pathlib import Path

import pytest

from product import start_product

TEST_TIMEOUT_S = 90
LOG_LINES_SHOWN = 60
DEBUG_BUILD = Path(__file__).resolve().parents[2] / "target" / "debug" / "turnstream"
LOG = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs a coroutine test in an event loop of its own, within the time limit."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_TIMEOUT_S))
    return True


# Every token administers the organisation of sessions without a token.
OPEN_TO_ADMINISTRATORS = {"SMOOTH_AGENT_AUTH_MODE": "none", "AUTH_DEV_ORG_ID": "reference-org"}


@pytest.fixture(scope="session")
def binary():
    """The path of the program."""
    binary = Path(os.environ.get("TURNSTREAM_BIN", DEBUG_BUILD))
    if not binary.is_file():
        pytest.exit(f"{binary} is missing: run `cargo build`, or set TURNSTREAM_BIN", returncode=1)
    return binary


@pytest.fixture(scope="session")
def product(binary, tmp_path_factory, pytestconfig):
    """The running product: `.http`, `.ws` and `.nats` are its addresses."""
    folder = tmp_path_factory.mktemp("product")
    pytestconfig.stash[LOG] = folder / "log"
    with start_product(binary, store=folder / "store", log=folder / "log", more=OPEN_TO_ADMINISTRATORS) as running:
        yield running


def pytest_terminal_summary(terminalreporter, config):
    """Prints the end of the program's log after a failure."""
    log = config.stash.get(LOG, None)
    if log is None or not log.exists() or not (terminalreporter.stats.get("failed") or terminalreporter.stats.get("error")):
        return
    terminalreporter.section("end of the program's log")
    for line in log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]:
        terminalreporter.write_line(line)
