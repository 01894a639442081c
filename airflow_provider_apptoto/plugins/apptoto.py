"""The plugin that adds the page "Apptoto outbox" to Airflow 3.1 and newer.

Every Airflow process and every task imports this module, so it imports nothing but Airflow's base class, which is
loaded already. Everything else is imported when the first request arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/apptoto"
"""Where Airflow mounts the app, after its own base path."""
ROUTE = "apptoto-outbox"
"""Where Airflow's UI shows the page, after ``/plugin/``."""


class LazyApp:
    """An ASGI app that is created by its first request."""

    def __init__(self) -> None:
        self._app: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._app is None:
            from airflow_provider_apptoto.ui.app import build

            self._app = build(PREFIX, ROUTE)
        await self._app(scope, receive, send)


_APPS = [{"app": LazyApp(), "url_prefix": PREFIX, "name": "Apptoto outbox"}]
_VIEWS = [
    {
        "name": "Apptoto outbox",
        # relative, because Airflow may have a base path
        "href": f"{PREFIX[1:]}/outbox",
        "destination": "nav",
        "url_route": ROUTE,
        "category": "browse",
        "icon": f"{PREFIX[1:]}/icon.svg",
        "icon_dark_mode": f"{PREFIX[1:]}/icon.svg",
    }
]


class ApptotoPlugin(AirflowPlugin):
    """Adds the page to the menu "Browse"."""

    name = "apptoto"
    # Before Airflow 3.1 there are no external views, and apps of plugins don't get the login cookie.
    if hasattr(AirflowPlugin, "external_views"):
        fastapi_apps = _APPS
        external_views = _VIEWS
