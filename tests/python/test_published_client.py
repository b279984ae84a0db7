"""The published client `smooai-smooth-operator` drives the product, unchanged."""

import asyncio
import time
import uuid

import pytest
from smooth_operator import ProtocolError

from published import (
    REFUND_REQUEST,
    RETURN_QUESTION,
    connected,
    final_text,
    kinds,
    open_session,
    play,
    streamed_text,
    tool_chunks,
    whole_history,
)

CLIENTS_AT_ONCE = 10
CLOCK_TOLERANCE_MS = 60_000
HISTORY_DEADLINE_S = 20
POLL_S = 0.05


async def test_a_turn_streams_a_cited_answer(product):
    async with connected(product) as client:
        session, _ = await open_session(client)
        turn = client.send_message(session_id=session, message=RETURN_QUESTION)
        events = await play(turn)
        final = await turn
    assert kinds(events)[0] == "immediate_response"
    assert kinds(events).count("stream_token") > 3, "the answer was not streamed"
    assert streamed_text(events) == final_text(final)
    assert "17 days" in final_text(final)
    assert final.data.data.citations, "the answer has no citation"
    assert any("17 days" in citation.snippet for citation in final.data.data.citations)
    assert final.data.data.usage.completion_tokens > 0


async def test_a_turn_without_streaming_gives_the_answer_alone(product):
    async with connected(product) as client:
        session, _ = await open_session(client)
        turn = client.send_message(session_id=session, message=RETURN_QUESTION, stream=False)
        events = await play(turn)
    assert kinds(events) == ["immediate_response", "eventual_response"]
    assert "17 days" in final_text(events[-1])


async def test_history_is_read_page_by_page(product):
    asked = ["hello", RETURN_QUESTION, "thanks"]
    answered = []
    async with connected(product) as client:
        session, _ = await open_session(client)
        for message in asked:
            answered.append(await client.send_message(session_id=session, message=message))
        messages = await whole_history(client, session, page=2)
        assert [m.id for m in messages] == [m.id for m in await whole_history(client, session, page=50)]
    messages.reverse()
    assert [m.direction for m in messages] == ["inbound", "outbound"] * len(asked)
    assert [m.content.text for m in messages[0::2]] == asked
    assert [m.content.text for m in messages[1::2]] == [final_text(final) for final in answered]
    assert [str(m.id) for m in messages[1::2]] == [final.data.data.message_id for final in answered]
    assert all(m.content.structured_response["responseParts"] for m in messages[1::2])
    assert [m.from_.type for m in messages[:2]] == ["user", "ai-agent"]
    assert [m.to.type for m in messages[:2]] == ["ai-agent", "user"]
    assert [m.created_at for m in messages] == sorted(m.created_at for m in messages)


async def test_a_session_is_described_as_it_was_created(product):
    async with connected(product) as first, connected(product) as second:
        agent = uuid.uuid4()
        made = await first.create_conversation_session(agent_id=str(agent), user_name="Ada", user_email="ada@example.com")
        seen = await second.get_session(session_id=str(made.session_id))
    assert made.agent_id == agent
    for name in made.model_fields_set:
        assert getattr(seen, name) == getattr(made, name)
    assert seen.thread_id == str(made.conversation_id)
    assert seen.status in ("active", "idle")


async def test_an_approved_refund_runs_and_is_answered(product):
    async with connected(product) as client:
        session, _ = await open_session(client)
        turn = client.send_message(session_id=session, message=REFUND_REQUEST)

        def approve():
            client.confirm_tool_action(session_id=session, request_id=turn.request_id, approved=True)

        events = await play(turn, approve)
        final = await turn
    prompt = kinds(events).index("write_confirmation_required")
    assert events[prompt].data.data.tool_id == "issue_refund"
    assert "refund" in events[prompt].data.data.action_description.lower()
    [(called, call)] = tool_chunks(events, "toolCall")
    [(returned, result)] = tool_chunks(events, "toolResult")
    assert prompt < called < returned < len(events) - 1
    assert call["name"] == result["name"] == events[called].node == "issue_refund"
    assert "ORD-1234" in call["arguments"]
    assert result["isError"] is False
    [ack] = [event for event in events[1:] if event.type == "immediate_response"]
    assert (ack.status, ack.message) == (200, "Tool action approved")
    assert ack.data == {"sessionId": session, "approved": True}
    assert events.index(ack) < returned
    assert final_text(final) and streamed_text(events[returned:]) == final_text(final)


async def test_a_rejected_refund_is_not_done(product):
    async with connected(product) as client:
        session, _ = await open_session(client)
        turn = client.send_message(session_id=session, message=REFUND_REQUEST)

        def reject():
            client.confirm_tool_action(session_id=session, request_id=turn.request_id, approved=False)

        events = await play(turn, reject)
        final = await turn
    [ack] = [event for event in events[1:] if event.type == "immediate_response"]
    assert (ack.status, ack.message) == (200, "Tool action rejected")
    [(_, result)] = tool_chunks(events, "toolResult")
    assert result["isError"] is True and "reject" in str(result["result"]).lower()
    assert final_text(final)


async def test_an_approval_may_come_over_another_connection(product):
    async with connected(product) as client:
        session, _ = await open_session(client)
        turn = client.send_message(session_id=session, message=REFUND_REQUEST)
        async for event in turn:
            if event.type == "write_confirmation_required":
                break
    async with connected(product) as client:
        client.confirm_tool_action(session_id=session, request_id=turn.request_id, approved=True)
        deadline = time.monotonic() + HISTORY_DEADLINE_S
        while True:
            messages = (await client.get_messages(session_id=session)).messages
            if messages[0].direction == "outbound":
                break
            assert time.monotonic() < deadline, "the approved turn has no answer"
            await asyncio.sleep(POLL_S)
    assert [m.direction for m in messages] == ["outbound", "inbound"]


async def test_a_running_turn_is_cancelled(product):
    async with connected(product) as client:
        session, _ = await open_session(client)
        turn = client.send_message(session_id=session, message=RETURN_QUESTION)
        async for event in turn:
            if event.type == "stream_token":
                turn.cancel()
                break
        assert (await turn).type == "cancelled"
        assert turn.cancelled
        await slot_is_free_and_only_the_question_stays(client, session, RETURN_QUESTION)


async def test_a_parked_turn_is_cancelled(product):
    async with connected(product) as client:
        session, _ = await open_session(client)
        turn = client.send_message(session_id=session, message=REFUND_REQUEST)
        await play(turn, at_prompt=turn.cancel)
        assert turn.cancelled
        error = await uncorrelated_error(client, lambda: confirm(client, session, "after-the-end"))
        assert error.data.error.code == "NO_PENDING_CONFIRMATION"
        await slot_is_free_and_only_the_question_stays(client, session, REFUND_REQUEST)


async def slot_is_free_and_only_the_question_stays(client, session, question):
    final = await client.send_message(session_id=session, message="hello")
    assert final.type == "eventual_response"
    messages = (await client.get_messages(session_id=session)).messages
    assert [m.content.text for m in reversed(messages)] == [question, "hello", final_text(final)]


async def test_a_second_message_is_refused_while_a_turn_waits(product):
    async with connected(product) as client:
        session, _ = await open_session(client)
        first = client.send_message(session_id=session, message=REFUND_REQUEST)
        refused = []

        async def send_another():
            with pytest.raises(ProtocolError) as error:
                await client.send_message(session_id=session, message="hello")
            refused.append(error.value.code)
            confirm(client, session, first.request_id, approved=False)

        async for event in first:
            if event.type == "write_confirmation_required":
                await send_another()
        assert refused == ["TURN_IN_PROGRESS"]
        assert (await first).type == "eventual_response"


async def test_several_clients_at_once_get_their_own_answers(product):
    async def one_client():
        async with connected(product) as client:
            session, conversation = await open_session(client)
            turn = client.send_message(session_id=session, message=RETURN_QUESTION)
            events = await play(turn)
            assert streamed_text(events) == final_text(events[-1])
            assert "17 days" in final_text(events[-1])
            assert len(await whole_history(client, session, page=50)) == 2
            return session, conversation

    ids = await asyncio.gather(*(one_client() for _ in range(CLIENTS_AT_ONCE)))
    assert len({id for pair in ids for id in pair}) == 2 * CLIENTS_AT_ONCE


async def test_ping_returns_the_servers_time(product):
    async with connected(product) as client:
        told = await client.ping()
    assert abs(told - time.time() * 1000) < CLOCK_TOLERANCE_MS


async def test_unknown_actions_and_ids_are_errors_with_their_codes(product):
    nobody = str(uuid.uuid4())
    async with connected(product) as client:
        for request in (client.get_session(session_id=nobody), client.get_messages(session_id=nobody)):
            with pytest.raises(ProtocolError) as error:
                await request
            assert error.value.code == "SESSION_NOT_FOUND"
        with pytest.raises(ProtocolError) as error:
            await client.send_message(session_id=nobody, message="hello")
        assert error.value.code == "SESSION_NOT_FOUND"
        error = await uncorrelated_error(client, lambda: confirm(client, nobody, "nothing-waits"))
        assert error.data.error.code == "NO_PENDING_CONFIRMATION"
        session, _ = await open_session(client)
        with pytest.raises(ProtocolError) as error:
            await client.get_messages(session_id=session, before="garbage")
        assert error.value.code == "VALIDATION_ERROR"
        assert await client.ping(), "the connection stays open after errors"


def confirm(client, session, request_id, approved=True):
    client.confirm_tool_action(session_id=session, request_id=request_id, approved=approved)


async def uncorrelated_error(client, action):
    """The error event that answers an action for which the client keeps no future."""
    answer = asyncio.get_running_loop().create_future()

    def listen(event):
        if event.type == "error" and not answer.done():
            answer.set_result(event)

    stop_listening = client.on_event(listen)
    action()
    try:
        return await answer
    finally:
        stop_listening()
