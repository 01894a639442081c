"""A task's link opens the outbox page with its messages, under any base path and with any role."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount

from airflow_provider_apptoto import _airflow_api
from airflow_provider_apptoto.links.apptoto import ApptotoOutboxLink
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from airflow_provider_apptoto.plugins.apptoto import PREFIX, LazyApp

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_ID = "manual__2026-11-29T08:00:00+00:00 & more"
TASK = SimpleNamespace(dag_id="clinic", task_id="group.remind", run_id=RUN_ID, map_index=3, try_number=1)
OPERATOR = ApptotoSendMessageOperator(task_id="remind", type="sms", to="+16505550199", message="Hi")


def link() -> str:
    return ApptotoOutboxLink().get_link(OPERATOR, ti_key=TASK)


def opened(url: str, base: str = "", **headers: str) -> str:
    """Return where a browser gets that follows a link of Airflow's UI."""
    app = Starlette(routes=[Mount(f"{base}{PREFIX}", LazyApp())])
    with TestClient(app, base_url="http://airflow.example") as client:
        answer = client.get(f"{base}/{url}", headers=headers, follow_redirects=False)
    assert answer.status_code == 307
    return str(answer.headers["location"])


@pytest.mark.parametrize("operator", [ApptotoSendMessageOperator, ApptotoSendMessageBatchOperator])
def test_each_operator_has_the_link(operator: type[ApptotoSendMessageOperator]) -> None:
    assert [each.name for each in operator.operator_extra_links] == ["Apptoto outbox"]


@pytest.mark.usefixtures("dags")
@pytest.mark.parametrize("base", ["", "/airflow"])
def test_the_link_opens_the_page_in_airflow_with_the_messages_of_the_task(base: str) -> None:
    location = urlsplit(opened(link(), base))
    assert location.path == f"{base}/plugin/apptoto-outbox{base}/apptoto/outbox"
    assert parse_qs(location.query) == {"dag": ["clinic"], "run": [RUN_ID], "task": ["group.remind"]}
    assert location.netloc == ""


@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_the_page_is_opened_alone_if_the_user_may_not_see_pages_of_plugins(
    token: Callable[[str], str], role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = f"_token={token(role)}"
    assert opened(link(), cookie=cookie).startswith("/plugin/")

    def refuse(_view: object) -> Callable[..., None]:
        def check(*_: object) -> None:
            raise HTTPException(403)

        return check

    monkeypatch.setattr(_airflow_api, "requires_access_view", refuse)  # as FAB does for its roles Viewer and User
    assert opened(link(), cookie=cookie).startswith("/apptoto/outbox?dag=clinic&run=manual__")


@pytest.mark.usefixtures("dags")
@pytest.mark.parametrize("query", ["", "?dag=//evil.example&next=//evil.example", "?to=https://evil.example"])
def test_the_link_leads_to_no_other_site(query: str) -> None:
    location = urlsplit(opened(f"apptoto/go{query}"))
    assert (location.scheme, location.netloc, location.path) == ("", "", "/plugin/apptoto-outbox/apptoto/outbox")
    assert set(parse_qs(location.query)) <= {"dag", "run", "task"}
