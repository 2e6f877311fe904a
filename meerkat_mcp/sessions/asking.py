"""One model call: asked, heard out, and when it fails for a while asked again.

What is worth asking again is said by the error (`retryable`), how often and how patiently by the realm's config. The
vendors' SDKs retry nothing: they differ in what they do, and none can begin a broken stream anew. Each new attempt is
an event, which voids what this step said before it. Tools never run from a reply that did not end.
"""

import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio

from meerkat_mcp import telemetry
from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.config import RetryConfig
from meerkat_mcp.domain.errors import MeerkatError, ProviderUnavailable
from meerkat_mcp.domain.messages import ToolCall
from meerkat_mcp.providers.base import ArgsPiece, ModelRequest, Part, Piece, Reply, Whole
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.sessions.plan import Answering

JITTER = 0.25

Say = Callable[[e.Event | Piece], None]


@dataclass(frozen=True, slots=True)
class Step:
    """Which step this is. A silent one tells nobody of its text: it is a summary, for ourselves."""

    number: int
    purpose: e.Purpose = "answer"
    silent: bool = False


@dataclass(slots=True)
class Answer:
    """What a model said."""

    reply: Reply
    text: str = ""
    calls: list[ToolCall] = field(default_factory=list[ToolCall])


async def ask(
    answering: Answering, request: ModelRequest, step: Step, retry: RetryConfig, clock: Clock, say: Say
) -> Answer:
    """Make the model call, and say what comes of it as it comes.

    Raises:
        ProviderUnavailable: it failed as often as it may, or the provider asks for more patience than there is.
        ProviderRejected, ProviderUnauthenticated.
    """
    started_ms = clock.now_ms()
    say(e.StepStarted(step=step.number, provider=answering.provider.name, model=answering.model, purpose=step.purpose))
    with telemetry.chat(
        session_id=request.session_id,
        provider=answering.provider.name,
        model=answering.model,
        max_tokens=request.max_tokens,
        base_url=answering.base_url,
    ) as span:
        attempt = 1
        while True:
            try:
                answer = await _attempt(answering, request, step, say, span)
                break
            except ProviderUnavailable as exc:
                delay_s = _delay_s(exc, attempt, retry)
                say(_retrying(exc, step, attempt, retry, delay_s))
                span.retried(attempt)
                await anyio.sleep(delay_s)
                attempt += 1
        reply = answer.reply
        span.replied(reply.model, reply.response_id, reply.stop_reason, reply.usage)
        span.said(request.system_prompt, request.messages, answer.text, answer.calls)
    say(
        e.StepCompleted(
            step=step.number,
            purpose=step.purpose,
            stop_reason=reply.stop_reason,
            usage=reply.usage,
            items=() if step.purpose == "summary" else reply.items,
            duration_ms=clock.now_ms() - started_ms,
            answered_by=reply.model,
            response_id=reply.response_id,
            detail=reply.detail,
        )
    )
    return answer


async def _attempt(
    answering: Answering, request: ModelRequest, step: Step, say: Say, span: telemetry.ModelCall
) -> Answer:
    answer: Answer | None = None
    with anyio.move_on_after(answering.call_timeout_s) as patience:
        async with aclosing(answering.provider.reply(request)) as parts:
            answer = await _hear(parts, step, say, span)
    if patience.cancelled_caught:
        raise ProviderUnavailable(
            f"The model call took longer than {answering.call_timeout_s:g} s.",
            hint="Raise call_timeout_s of this provider in the realm's config.",
            kind="timeout",
        )
    if answer is None or answer.reply.stop_reason == "truncated":
        raise ProviderUnavailable(
            "The model's stream broke off before its end.", hint="Prompt again to go on.", kind="truncated"
        )
    return answer


async def _hear(parts: AsyncGenerator[Part], step: Step, say: Say, span: telemetry.ModelCall) -> Answer | None:
    """Take the reply part by part; None when it had no end."""
    text, calls, answer = "", list[ToolCall](), None
    asked_at = time.monotonic()
    heard = False
    async for part in parts:
        if not heard:
            heard = True
            span.first_piece(time.monotonic() - asked_at)
        match part:
            case Piece():
                if not step.silent:
                    say(part)
            case Whole(kind="text"):
                text += part.text
                if not step.silent:
                    say(e.TextComplete(text=part.text))
            case Whole():
                if not step.silent:
                    say(e.ReasoningComplete(text=part.text))
            case ToolCall():
                calls.append(part)
                say(e.ToolCallRequested(**part.model_dump(exclude={"kind"})))
            case ArgsPiece():
                pass
            case Reply():
                answer = Answer(part, text, calls)
    return answer


def _retrying(exc: MeerkatError, step: Step, attempt: int, retry: RetryConfig, delay_s: float) -> e.Retrying:
    return e.Retrying(
        step=step.number,
        attempt=attempt + 1,
        attempts_max=retry.attempts,
        kind=str(exc.facts.get("kind", exc.code)),
        message=exc.message,
        delay_s=round(delay_s, 3),
    )


def _delay_s(exc: ProviderUnavailable, attempt: int, retry: RetryConfig) -> float:
    """How long to wait before the next attempt: as long as the provider asks for, else twice as long each time, with
    some jitter, so that many who failed together do not come back together. Raises `exc` when there is none.
    """
    if attempt >= retry.attempts:
        raise exc
    if exc.retry_after_s is not None:
        if exc.retry_after_s > retry.max_delay_s:
            exc.hint = (
                f"It asks to wait {exc.retry_after_s:g} s, longer than retry.max_delay_s allows: "
                "prompt again by then, or use another model."
            )
            raise exc
        return exc.retry_after_s
    delay_s = min(retry.max_delay_s, retry.base_delay_s * 2 ** (attempt - 1))
    return delay_s * (1 - JITTER * random.random())
