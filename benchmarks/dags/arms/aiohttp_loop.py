"""Send with ``aiohttp`` and a rate limiter in a Python task, as an experienced user writes it."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow.sdk import task

from benchmarks.dags.common import ATTEMPTS, RATE, TEXT, TIMEOUT, URL, dags, finish

if TYPE_CHECKING:
    import aiohttp
    from aiolimiter import AsyncLimiter


async def post(session: aiohttp.ClientSession, limiter: AsyncLimiter, to: str) -> bool:
    """Send one message, and return whether it was sent."""
    import aiohttp

    for attempt in range(ATTEMPTS):
        wait = 0.5 * 2**attempt
        try:
            async with limiter, session.post(URL, json={"type": "sms", "to": to, "message": TEXT}) as answer:
                if answer.ok and (await answer.json(content_type=None))["success"] is True:
                    return True
                if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                    return False
                wait = float(answer.headers.get("Retry-After", wait))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            pass
        if attempt < ATTEMPTS - 1:
            await asyncio.sleep(wait)
    return False


async def post_all(people: list[str]) -> list[str]:
    """Send to these people, and return the people to whom nothing was sent."""
    import aiohttp
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(1, 1 / RATE)  # avoids bursts, as its documentation recommends
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
        sent = await asyncio.gather(*(post(session, limiter, to) for to in people))
    return [to for to, is_sent in zip(people, sent, strict=True) if not is_sent]


@task
def send(people: list[str]) -> None:
    """Send to these people."""
    finish(asyncio.run(post_all(people)))


for people in dags("aiohttp_loop"):
    send(people)
