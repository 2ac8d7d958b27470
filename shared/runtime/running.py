"""A stack that runs on this machine: found by its data folder, asked over HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from shared.contracts.errors import NeedsOperator
from shared.runtime.settings import PORTS


@dataclass(frozen=True)
class Stack:
    """A stack that runs on this machine."""

    folder: Path
    port_base: int

    @classmethod
    def of(cls, data_dir: Path) -> Stack:
        """The stack that runs on this data folder, or on the only one below it."""
        found = sorted(data_dir.glob("running.json")) or sorted(data_dir.glob("*/running.json"))
        if not found:
            raise NeedsOperator(f"Nothing runs on the data folder {data_dir}. Start it with `trimtab up`.")
        if len(found) > 1:
            names = ", ".join(str(file.parent) for file in found)
            raise NeedsOperator(f"Several stacks run below {data_dir}: {names}. Name one with --data-dir.")
        facts = json.loads(found[0].read_text(encoding="utf-8"))
        return cls(found[0].parent, facts["port_base"])

    def get(self, service: str, path: str, **query: Any) -> Any:
        """A service's answer. Raises NeedsOperator when it does not answer, or says no."""
        return self._ask("GET", service, path, params=query)

    def post(self, service: str, path: str, body: dict[str, Any]) -> Any:
        """Ask a service to change something, with this stack's token."""
        token = (self.folder / "api-token").read_text(encoding="utf-8").strip()
        return self._ask("POST", service, path, json=body, headers={"Authorization": f"Bearer {token}"})

    def _ask(self, method: str, service: str, path: str, **options: Any) -> Any:
        url = f"http://127.0.0.1:{self.port_base + PORTS[service]}{path}"
        try:
            answer = httpx.request(method, url, timeout=30.0, **options)
        except httpx.HTTPError as error:
            raise NeedsOperator(f"{service} does not answer at {url}: {error}. See {self.folder}/logs.") from error
        if answer.is_error:
            detail = (
                answer.json().get("detail", answer.text) if "json" in answer.headers.get("content-type", "") else ""
            )
            raise NeedsOperator(f"{service} said {answer.status_code}: {detail or answer.text}")
        return answer.json()
