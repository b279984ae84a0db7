"""The operator's first hour: the commands of `ops/production.md`, as they stand there, in one shell.

Three NATS servers with TLS, a user for each role, two edges, two pools of workers, a policy, agents, documents, a checkpoint,
retention. Two things are put in: free ports for the page's, and a gateway of this test for the page's example. Between the
chapters visitors come, so that there is something to sign and to keep.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "ops" / "production.md"
# The page's ports: NATS (clients, routes, monitoring), edges, operations.
PORTS = ["4222", "4223", "4224", "6222", "6223", "6224", "8222", "8223", "8224", "8787", "8788", "9464", "9465", "9466", "9467"]
ANSWER_MAX_S = 60
CHAPTER_MAX_S = 300

# Stands in for the `nats` command where it is not installed: the one command of the page.
NATS_COMMAND = """#!{python}
import argparse, asyncio, json, ssl
import nats
parser = argparse.ArgumentParser()
for flag in ("--server", "--tlsca", "--user", "--password"):
    parser.add_argument(flag, required=True)
parser.add_argument("words", nargs=4, metavar="consumer add STREAM NAME")
parser.add_argument("--config", required=True)
given = parser.parse_args()
assert given.words[:2] == ["consumer", "add"], given.words
async def main():
    client = await nats.connect(
        given.server.split(","), user=given.user, password=given.password, tls=ssl.create_default_context(cafile=given.tlsca)
    )
    stream, name = given.words[2:]
    config = json.load(open(given.config))
    body = json.dumps({{"stream_name": stream, "config": config, "action": "create"}}).encode()
    answer = json.loads((await client.request(f"$JS.API.CONSUMER.CREATE.{{stream}}.{{name}}", body, timeout=10)).data)
    assert "error" not in answer, answer
    await client.close()
asyncio.run(main())
"""


class Gateway(BaseHTTPRequestHandler):
    """A model gateway: each reply names the model that was asked for."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.headers.get("authorization"), asked))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        part = {"choices": [{"index": 0, "delta": {"content": "Within 30 days."}, "finish_reason": None}]}
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        for data in (json.dumps(part), json.dumps(end), "[DONE]"):
            self.wfile.write(f"data: {data}\n\n".encode())


@contextmanager
def gateway():
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def free_ports(count):
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [str(taken.getsockname()[1]) for taken in sockets]


class Shell:
    """One bash; a command that fails ends it."""

    def __init__(self, folder, environment):
        self.folder, self.log = folder, folder / "shell.log"
        self.process = subprocess.Popen(
            ["bash", "-euo", "pipefail"], cwd=folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"),
        )
        # The servers in the background hold the pipe open, so the shell itself says that it ends.
        self.process.stdin.write("trap 'echo \"@@ failed\"' EXIT\n")

    def run(self, title, script):
        """Runs a chapter, and returns its output."""
        ending = threading.Timer(CHAPTER_MAX_S, self.end)
        ending.start()
        self.process.stdin.write(f"{script}\necho '@@ done'\n")
        self.process.stdin.flush()
        printed = []
        for line in self.process.stdout:
            if line == "@@ done\n":
                ending.cancel()
                return "".join(printed)
            if line == "@@ failed\n":
                break
            printed.append(line)
        ending.cancel()
        pytest.fail(f"{title} failed\n{''.join(printed)}\n{self.log.read_text()[-4000:]}")

    def wait_for(self, file, text):
        """Waits until a process has logged this."""
        self.run(f"{file}: {text}", f"timeout {ANSWER_MAX_S} grep -q '{text}' <(tail -n +1 -F {file} 2>/dev/null)")

    def end(self):
        # The session is the shell's own, so this ends only the shell and the processes that it started.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def chapters(page):
    """The chapters of the page with their commands, in order."""
    for chapter in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        title, text = chapter.split("\n", 1)
        yield title, "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def visit(port, agent):
    """A visitor on a page of the shop, who asks one question; the answer and the conversation."""
    with connect(f"ws://127.0.0.1:{port}/ws", origin="https://shop.example", open_timeout=ANSWER_MAX_S) as socket_:

        def until(kind, request):
            while True:
                frame = json.loads(socket_.recv(timeout=ANSWER_MAX_S))
                assert frame["type"] != "error", frame
                if frame.get("requestId") == request and kind(frame):
                    return frame

        socket_.send(json.dumps({"action": "create_conversation_session", "requestId": "open", "agentId": agent}))
        opened = until(lambda frame: "sessionId" in frame.get("data", {}), "open")["data"]
        message = {"action": "send_message", "requestId": "ask", "sessionId": opened["sessionId"], "message": "May I return it?"}
        socket_.send(json.dumps(message))
        ended = until(lambda frame: frame["type"] == "eventual_response", "ask")
        return "".join(ended["data"]["data"]["response"]["responseParts"]), opened["conversationId"]


@pytest.fixture
def shell(binary, tmp_path):
    first, last = tmp_path / "first", tmp_path / "last"
    first.mkdir()
    last.mkdir()
    # The program under test and its server come before any that are installed.
    (first / "turnstream").symlink_to(binary.resolve())
    if "NATS_SERVER" in os.environ:
        (first / "nats-server").symlink_to(Path(os.environ["NATS_SERVER"]).resolve())
    # An installed `nats` comes before its stand-in.
    (last / "nats").write_text(NATS_COMMAND.format(python=sys.executable))
    (last / "nats").chmod(0o755)
    foreign = ("SMOOTH_", "SMOOAI_", "AUTH_", "WIDGET_", "NATS_", "TURNSTREAM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment = {**kept, "PATH": f"{first}:{os.environ['PATH']}:{last}", "checkout": str(ROOT)}
    folder = tmp_path / "hour"
    folder.mkdir()
    shell = Shell(folder, environment)
    yield shell
    shell.end()


def test_the_guide_leads_from_nothing_to_production(shell):
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    with gateway() as model:
        page = re.sub(r"\b(?:" + "|".join(PORTS) + r")\b", lambda found: ports[found[0]], PAGE.read_text())
        page = page.replace("https://gateway.example", f"http://127.0.0.1:{model.server_port}")
        printed, conversations = {}, []
        for title, script in chapters(page):
            printed[title] = shell.run(title, script)
            if title == "7. Documents":
                for edge, agent in (("edge-1", "support"), ("edge-1", "research"), ("edge-2", "support"), ("edge-2", "research")):
                    shell.wait_for(f"{edge}.log", f'agent="{agent}"')
                # Each agent over each edge: any edge serves any visitor.
                for port in ("8787", "8788"):
                    for agent in ("support", "research"):
                        answer, conversation = visit(ports[port], agent)
                        assert answer == "Within 30 days."
                        conversations.append(conversation)
        asked = model.asked
    assert {authorization for authorization, _ in asked} == {"Bearer the-gateways-key"}
    of_pool = lambda pool: shell.run(
        pool, f"curl -fs http://127.0.0.1:{ports['9466' if pool == 'default' else '9467']}/metrics"
    )
    for pool in ("default", "research"):
        ended = re.findall(r'^turnstream_turns_total\{.*outcome="completed".*\} (\d+)', of_pool(pool), re.MULTILINE)
        assert sum(map(int, ended)) == 2, f"the workers of {pool} answered the visitors of its agent, and no others"
    assert len(printed) == 10, "no chapter is passed over"
    assert printed["3. Streams, and the users' permissions"].count("has exactly the permissions it needs") == 6
    for agent in ("support", "research"):
        assert agent in printed["6. Agents"]
    assert len(set(conversations)) == 4
    assert f"all: {len(conversations)} conversations due" in printed["9. Retention"]
    assert "all: 0 conversations due" in printed["9. Retention"], "nothing is old enough today"
    for process in ("edge-1", "edge-2", "worker-1", "worker-2"):
        # The guide leads to a deployment that its own processes have nothing to say against.
        warned = [line for line in (shell.folder / f"{process}.log").read_text().splitlines() if " WARN " in line or " ERROR " in line]
        assert not warned, warned
    assert 'role="edge"' in printed["10. See it, and stop it"] and 'role="worker"' in printed["10. See it, and stop it"]
    # SIGTERM drains: all of them end by themselves, with 0.
    processes = shell.run("stop", "jobs -p").split()
    assert len(processes) == 7
    ours = " ".join(processes[3:])
    shell.run("stop", f"kill {ours}\nfor process in {ours}; do wait $process; done")
