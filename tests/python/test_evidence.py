"""Other programs read the output of `turnstream audit export`: pyarrow a table, and an independent verifier an evidence bundle."""

import hashlib
import json
import subprocess
from datetime import datetime, timedelta

import nats
import pyarrow.parquet
import pytest

from bundle_verifier import COVERED, Forged, verify
from published import RETURN_QUESTION, connected, open_session
from test_nats_follow import follow

COMMAND_TIMEOUT_S = 60


@pytest.fixture
def audit(product, binary, tmp_path):
    """Runs `turnstream audit …` with a signing key in a folder of its own."""

    def run(*arguments):
        environment = {"NATS_URL": product.nats, "SMOOTH_AGENT_AUDIT_KEY_FILE": str(tmp_path / "key.pem")}
        command = [binary, "audit", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("keygen", tmp_path / "key.pem")
    return run


async def converse(product):
    """Makes a conversation with a turn; returns its id and stored events."""
    connection = await nats.connect(product.nats)
    try:
        async with connected(product) as client:
            session, conversation = await open_session(client)
            await client.send_message(session_id=session, message=RETURN_QUESTION)
        return conversation, await follow(connection, conversation)
    finally:
        await connection.close()


async def test_pyarrow_reads_the_table(product, audit, tmp_path):
    conversation, events = await converse(product)
    file = tmp_path / "events.parquet"
    audit("export", "--format", "parquet", "--conversation", conversation, "--to", file)
    table = pyarrow.parquet.read_table(file)
    assert table.num_rows == len(events)
    rows = table.to_pylist()
    digest = "0" * 64
    for row, event in zip(rows, events, strict=True):
        headers = event.headers
        assert row["seq"] == event.metadata.sequence.stream
        assert row["subject"] == event.subject
        assert row["conversation"] == conversation
        assert row["org"] == event.subject.split(".")[2]
        names = ("id", "type", "source")
        assert [row[name] for name in names] == [headers[f"ce-{name}"] for name in names]
        assert row["time"] == datetime.fromisoformat(headers["ce-time"])
        assert abs(row["stored_at"] - row["time"]) < timedelta(seconds=COMMAND_TIMEOUT_S)
        assert row["prev"] == int(headers["ce-prev"])
        assert row["prev_digest"] == headers["ce-prevdigest"] == digest
        assert json.loads(row["payload"]) == json.loads(event.data)
        assert row["sealed"] is None
        covered = "".join(f"{headers[name]}\n" for name in COVERED)
        digest = hashlib.sha256(f"{event.subject}\n{covered}\n".encode() + event.data).hexdigest()
        assert row["digest"] == digest


async def test_a_bundle_is_verified_by_its_readme_alone(product, audit, tmp_path):
    await converse(product)
    audit("seal", "--once")
    _, events = await converse(product)
    bundle = tmp_path / "bundle"
    audit("export", "--format", "bundle", "--to", bundle)
    key = (tmp_path / "key.pem.pub").read_bytes()
    count, checkpoints = verify(bundle, key)
    assert count >= 2 * len(events) and checkpoints >= 2
    audit("verify", "--bundle", bundle, "--public-key", tmp_path / "key.pem.pub", "--require-sealed", "--whole")

    part = bundle / "events-000001.ndjson"
    written = part.read_text()
    question = RETURN_QUESTION.split()[0]
    assert question in written
    part.write_text(written.replace(question, "Whose"))
    with pytest.raises(Forged):
        verify(bundle, key)
    lines = written.splitlines(keepends=True)
    part.write_text("".join(lines[:-1]))
    with pytest.raises(Forged):
        verify(bundle, key)
    part.write_text(written)
    audit("keygen", tmp_path / "other.pem")
    with pytest.raises(Forged):
        verify(bundle, (tmp_path / "other.pem.pub").read_bytes())
