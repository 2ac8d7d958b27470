"""The two protocols. Each turns a text into an answer that says what became of it; nothing is raised, nothing retried
here. The libraries are imported when a channel is opened: without one they need not be installed."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Literal, NamedTuple, Protocol
from urllib.error import URLError

from services.notifier.settings import NotifierSettings
from shared.contracts.errors import NeedsOperator

Name = Literal["telegram", "slack"]


class Answer(NamedTuple):
    """What became of a text.

    delivered   it is there
    later       it is not there; try again after `after_s` or when we think best
    unanswered  it left, and nobody knows
    refused     this text will never be taken
    closed      nothing is taken from us: a key or an address is wrong
    """

    became: Literal["delivered", "later", "unanswered", "refused", "closed"]
    detail: str = ""
    after_s: float = 0.0


class Channel(Protocol):
    """Somewhere to tell people."""

    @property
    def name(self) -> Name: ...

    @property
    def per_minute(self) -> float: ...

    @property
    def most_chars(self) -> int: ...

    async def send(self, text: str) -> Answer:
        """Hand one text over."""
        ...

    async def close(self) -> None: ...


async def open_channels(settings: NotifierSettings) -> list[Channel]:
    """The channels whose keys are set. None under DRY_RUN."""
    token, chat = settings.telegram_bot_token.get_secret_value(), settings.telegram_chat_id
    if bool(token) != bool(chat):
        missing = "TELEGRAM_CHAT_ID" if token else "TELEGRAM_BOT_TOKEN"
        raise NeedsOperator(f"Telegram needs TELEGRAM_BOT_TOKEN and TELEGRAM_CHAT_ID; {missing} is not set.")
    channels: list[Channel] = []
    if settings.dry_run:
        return channels
    if token:
        channels.append(await TelegramChannel.open(settings))
    if settings.slack_webhook_url.get_secret_value():
        channels.append(SlackChannel(settings))
    return channels


class TelegramChannel:
    """The Bot API's sendMessage, as plain text."""

    name: Name = "telegram"
    most_chars = 4096  # https://core.telegram.org/bots/api#sendmessage

    def __init__(self, bot: Any, requests: Any, settings: NotifierSettings) -> None:
        self._bot, self._requests, self._chat = bot, requests, settings.telegram_chat_id
        self._secret = settings.telegram_bot_token.get_secret_value()
        self.per_minute = settings.telegram_per_minute

    @classmethod
    async def open(cls, settings: NotifierSettings) -> TelegramChannel:
        # Asks the library for timedeltas; its seconds come with a deprecation warning.
        os.environ.setdefault("PTB_TIMEDELTA", "1")
        try:
            from telegram import Bot
            from telegram.request import HTTPXRequest
        except ImportError as error:
            raise NeedsOperator("Telegram needs the extra `notify`: install trimtab[notify].") from error

        wait = settings.timeout_s
        requests = HTTPXRequest(connect_timeout=wait, read_timeout=wait, write_timeout=wait, pool_timeout=wait)
        await requests.initialize()
        # The bot's own start would ask getMe; a wrong token is told by the first message as well.
        bot = Bot(
            settings.telegram_bot_token.get_secret_value(),
            base_url=f"{settings.telegram_url.rstrip('/')}/bot",
            request=requests,
            get_updates_request=requests,
        )
        return cls(bot, requests, settings)

    async def send(self, text: str) -> Answer:
        import httpx
        from telegram import error as says

        try:
            await self._bot.send_message(self._chat, text)
        except says.RetryAfter as error:
            return Answer("later", str(error), error.retry_after.total_seconds())  # pyright: ignore[reportAttributeAccessIssue]
        except (says.InvalidToken, says.Forbidden, says.ChatMigrated) as error:
            return Answer("closed", self._without_secret(error))
        except says.BadRequest as error:
            is_ours = "chat not found" not in str(error).lower()
            return Answer("refused" if is_ours else "closed", self._without_secret(error))
        except says.NetworkError as error:
            cause = error.__cause__  # none of httpx's when the server did answer: with a 5xx
            never_left = not isinstance(cause, httpx.HTTPError) or isinstance(
                cause, httpx.ConnectError | httpx.ConnectTimeout
            )
            return Answer("later" if never_left else "unanswered", self._without_secret(error))
        except says.TelegramError as error:  # an answer that is not what the Bot API says
            return Answer("unanswered", self._without_secret(error))
        return Answer("delivered")

    def _without_secret(self, error: Exception) -> str:
        return (str(error) or type(error).__name__).replace(self._secret, "***")

    async def close(self) -> None:
        await self._requests.shutdown()


class SlackChannel:
    """An incoming webhook."""

    name: Name = "slack"
    most_chars = 12_000  # Slack cuts at 40,000; nobody reads that much

    def __init__(self, settings: NotifierSettings) -> None:
        try:
            from slack_sdk.webhook import WebhookClient
        except ImportError as error:
            raise NeedsOperator("Slack needs the extra `notify`: install trimtab[notify].") from error
        self.per_minute = settings.slack_per_minute
        # Retries are the queue's; the asynchronous client would need another HTTP library.
        url = settings.slack_webhook_url.get_secret_value()
        self._client = WebhookClient(url, timeout=max(1, round(settings.timeout_s)), retry_handlers=[])

    async def send(self, text: str) -> Answer:
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        try:
            answer = await asyncio.to_thread(self._client.send, text=escaped)
        except (URLError, ConnectionRefusedError) as error:
            return Answer("later", type(error).__name__)
        except OSError as error:  # the connection broke, or nothing came back in time
            return Answer("unanswered", type(error).__name__)
        if answer.status_code == 200:
            return Answer("delivered")
        detail = f"HTTP {answer.status_code} {answer.body}"[:200]
        if answer.status_code == 429:
            return Answer("later", detail, float(answer.headers.get("Retry-After", "1")))
        if answer.status_code >= 500:
            return Answer("later", detail)
        return Answer("closed" if answer.status_code in (401, 403, 404, 410) else "refused", detail)

    async def close(self) -> None:
        pass  # a connection a message
