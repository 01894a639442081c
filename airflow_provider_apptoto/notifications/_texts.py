"""What a notification is about: its key, its default text, and texts made safe to send."""

from __future__ import annotations

import copy
import hashlib
import json
import uuid
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_apptoto._airflow import without_secrets
from airflow_provider_apptoto.client.messages import CONTROL
from airflow_provider_apptoto.client.segments import estimate_segments
from airflow_provider_apptoto.privacy import printable, safe_text
from airflow_provider_apptoto.templating.syntax import OPENING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SEGMENTS = 3
_MAX_EXCEPTION = 160
_MAX_ID = 100
"""Maximum characters of an id of a DAG, task or run in the default text."""
_MAX_TEXT = 10_000
_ELLIPSIS = "..."
_TASK = {
    "failed": "Failed: ",
    "up_for_retry": "Failed, will be retried: ",
    "success": "Succeeded: ",
    "skipped": "Skipped: ",
    "running": "Started: ",
}
_DAG = {"failed": "DAG failed: ", "success": "DAG succeeded: "}


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a notification is about.

    :param level: ``task``, ``dag``, ``deadline`` or ``unknown``.
    :param parts: identify the occasion together with ``level``; a ``None`` in it means that it can't be identified.
    :param headline: the first line of the default text, and the subject of an e-mail.
    :param detail: the rest of the default text.
    :param context: the context for the outbox.
    """

    level: str
    parts: tuple[object, ...]
    headline: str
    detail: str
    context: dict[str, Any]

    @property
    def text(self) -> str:
        """The default text."""
        return f"{self.headline}\n{self.detail}" if self.detail else self.headline

    def key(self, channel: str, to: str, text: str) -> str:
        """Return the idempotency key of a notification; it is unique if the occasion can't be identified.

        :param to: the normalised recipient.
        :param text: the text before a number of held back notifications is appended.
        """
        parts: list[object] = ["notifier", self.level, *self.parts, channel, to, text]
        if None in self.parts:
            parts.append(uuid.uuid4().hex)
        return f"notifier-{hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()}"

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> Occasion:
        """Read the occasion from the context of a callback, a deadline or a task."""
        ti, run = context.get("ti"), context.get("dag_run")
        if context.get("deadline") is not None:
            return _deadline(context["deadline"], run)
        if "reason" in context or (ti is None and run is not None):  # its ti is any task of the run
            return _dag(context, run)
        return _task(context, ti) if ti is not None else _unknown(context)


def _deadline(deadline: object, run: object) -> Occasion:
    dag_id, run_id = _get(run, "dag_id"), _run_id(run)
    due = _get(deadline, "deadline_time")
    known = SimpleNamespace(dag_id=dag_id or "", run_id=run_id or "", state="deadline")
    return Occasion(
        level="deadline",
        parts=(_get(deadline, "id"),),
        headline=f"Deadline missed: {_place(dag_id, run_id)}",
        detail=f"Due at {printable(str(due))[:40]}" if due else "",
        context={"dag_run": known},
    )


def _dag(context: Mapping[str, Any], run: object) -> Occasion:
    dag_id = _get(run, "dag_id") or _get(context.get("dag"), "dag_id")
    run_id = _run_id(run) or context.get("run_id")
    state = _state(run)
    reason = printable(str(context.get("reason") or "")).replace("_", " ")
    is_success = state == "success" or reason == "success"
    shown = state if state in _DAG else "success" if is_success else "failed"
    known = SimpleNamespace(dag_id=dag_id or "", run_id=run_id or "", state=shown)
    return Occasion(
        level="dag",
        parts=(dag_id, run_id, _get(run, "clear_number"), shown),
        headline=f"{_DAG[shown]}{_place(dag_id, run_id)}",
        detail="" if is_success or not reason else f"Reason: {reason[:_MAX_ID]}",
        context={"dag_run": known},
    )


def _task(context: Mapping[str, Any], ti: Any) -> Occasion:
    error = shown_exception(context)
    state = _state(ti) or "failed"  # there is none in the DAG processor, which calls for failures alone
    index = ti.map_index if ti.map_index is not None else -1
    mapped = f"[{index}]" if index >= 0 else ""
    place = _place(f"{ti.dag_id}.{ti.task_id}{mapped}", ti.run_id)
    asks = state == "running" and any(each.__name__ == "HITLOperator" for each in type(context.get("task")).__mro__)
    prefix = "Waiting for an answer: " if asks else _TASK.get(state, f"{state}: ")
    lines = [error] if error and state in {"failed", "up_for_retry"} else []
    if asks:
        lines = [safe_text(without_secrets(str(getattr(context["task"], "subject", ""))), limit=_MAX_EXCEPTION)]
    elif state in {"failed", "up_for_retry"}:
        tries = "" if getattr(ti, "max_tries", None) is None else f" of {max(ti.max_tries + 1, ti.try_number)}"
        lines.insert(0, f"Try {ti.try_number}{tries}")
    return Occasion(
        level="task",
        parts=(ti.dag_id, ti.run_id, ti.task_id, index, ti.try_number, state),
        headline=f"{prefix}{place}",
        detail="\n".join(filter(None, lines)),
        # without task_state_store: it can't be used in most callbacks
        context={"ti": ti},
    )


def _unknown(context: Mapping[str, Any]) -> Occasion:
    dag_id = _get(context.get("dag"), "dag_id")
    run_id = context.get("run_id")
    known = SimpleNamespace(dag_id=dag_id or "", run_id=run_id or "", state=None)
    return Occasion(
        level="unknown",
        parts=(None,),
        headline=f"Airflow notification: {_place(dag_id, run_id)}",
        detail=shown_exception(context),
        context={"dag_run": known},
    )


def shown_exception(context: Mapping[str, Any]) -> str:
    """Return the exception of a context on one line, cut and masked; empty if there is none."""
    error = context.get("exception")
    if error is None or error == "":
        return ""
    name = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
    return safe_text(without_secrets(f"{name}{error}"), limit=_MAX_EXCEPTION).replace("…", _ELLIPSIS)


def template_context(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the context for templates: the exception masked, and ``dag_run.run_id`` also in a deadline."""
    known: dict[str, Any] = {"exception": shown_exception(context)}
    run = context.get("dag_run")
    if isinstance(run, dict) and run.get("dag_run_id"):
        known["dag_run"] = {**run, "run_id": run["dag_run_id"]}
    values: Any = copy.copy(context)
    values.update(known)  # Airflow 2.11 warns if all values of its context are read, as {**context} does
    return cast("Mapping[str, Any]", values)


def clean(text: str) -> str:
    """Return a text that Apptoto sends as it is: no template syntax, no control characters; maybe empty."""
    text = text[:_MAX_TEXT].encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    text = OPENING.sub("{ ", CONTROL.sub(" ", text)).strip()
    return text if any(each.isprintable() and not each.isspace() for each in text) else ""


def fitted(text: str, channel: str, note: str = "") -> str:
    """Return a text with a note appended, cut to three segments if it is an SMS.

    :param note: is never cut.
    """
    end = f"\n{note}" if note else ""
    if channel != "sms" or estimate_segments(text + end).parts <= MAX_SEGMENTS:
        return text + end
    end = _ELLIPSIS + end
    least, most = 0, len(text)
    while least < most:
        middle = (least + most + 1) // 2
        if estimate_segments(text[:middle] + end).parts <= MAX_SEGMENTS:
            least = middle
        else:
            most = middle - 1
    return text[:least].rstrip() + end


def _place(what: object, run_id: object) -> str:
    run = f", run {_short(run_id)}" if run_id else ""
    return f"{_short(what) if what else 'an Airflow DAG'}{run}"


def _short(value: object) -> str:
    text = printable(str(value))
    return text if len(text) <= _MAX_ID else f"{text[: _MAX_ID - len(_ELLIPSIS)]}{_ELLIPSIS}"


def _get(of: object, name: str) -> Any:
    return of.get(name) if isinstance(of, dict) else getattr(of, name, None)


def _run_id(run: object) -> Any:
    return _get(run, "run_id") or _get(run, "dag_run_id")


def _state(of: object) -> str | None:
    state = _get(of, "state")
    return None if state is None else str(getattr(state, "value", state))
