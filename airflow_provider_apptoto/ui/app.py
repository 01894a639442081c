"""The app that Airflow's API server mounts: the page, and the routes that it calls."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Query, Response, status
from fastapi.exceptions import RequestValidationError

# FastAPI reads the annotations when the routes are added
from starlette.requests import Request  # noqa: TC002
from starlette.responses import JSONResponse, RedirectResponse

from airflow_provider_apptoto._airflow_api import may_open_plugins
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.ui.access import BodyLimit, only_own_pages
from airflow_provider_apptoto.ui.requests import Link  # noqa: TC001  FastAPI reads the annotations
from airflow_provider_apptoto.ui.routes import router
from airflow_provider_apptoto.ui.sources import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.middleware.base import RequestResponseEndpoint

log = logging.getLogger(__name__)

_MAX_SHOWN = 5
"""Invalid fields that an answer names."""
_FOLDER = Path(__file__).parent
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build(prefix: str, route: str) -> FastAPI:
    """Return the app.

    :param prefix: where Airflow mounts it, after its own base path.
    :param route: where Airflow's UI shows the page, after ``/plugin/``.
    """
    app = FastAPI(
        title="Apptoto outbox",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(only_own_pages)],
    )
    app.include_router(router)
    app.add_exception_handler(SourceError, _unavailable)
    app.add_exception_handler(ApptotoConfigurationError, _misconfigured)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    page, policy = read_page()
    icon = (_FOLDER / "icon.svg").read_text()

    @app.middleware("http")
    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    app.add_middleware(BodyLimit, headers=_HEADERS)

    @app.get("/outbox")
    def show_page() -> Response:
        """Return the page. It holds no data, so it needs no user."""
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": policy})

    @app.get("/go")
    async def open_page(request: Request, link: Annotated[Link, Query()]) -> Response:
        """Open the page within Airflow's UI, or alone if the user may not see pages of plugins."""
        root = request.scope.get("root_path", "")
        query = urlencode(link.model_dump(exclude_none=True))
        page = f"{root}/outbox?{query}"
        if await may_open_plugins(request):
            # Airflow 3.3 opens the path that follows the route; before, it ignores that, and the page reads the query
            page = f"{root.removesuffix(prefix)}/plugin/{route}{page}"
        return RedirectResponse(page, status.HTTP_307_TEMPORARY_REDIRECT)

    @app.get("/icon.svg")
    def show_icon() -> Response:
        return Response(icon, media_type="image/svg+xml")

    return app


def read_page() -> tuple[str, str]:
    """Return the page, and a policy that allows nothing but its own script and style."""
    page = (_FOLDER / "page.html").read_text()
    policy = {
        "default-src": "'none'",
        "script-src": _hash_of("script", page),
        "style-src": _hash_of("style", page),
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    }
    return page, "; ".join(f"{name} {value}" for name, value in policy.items())


def _hash_of(tag: str, page: str) -> str:
    [text] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _answer(code: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, code, headers=_HEADERS)


async def _unavailable(_request: Request, error: Exception) -> Response:
    return _answer(status.HTTP_503_SERVICE_UNAVAILABLE, str(error))


async def _misconfigured(_request: Request, error: Exception) -> Response:
    log.warning("Outbox page: %s", error)
    detail = "The section [apptoto] of Airflow's configuration is invalid. The log of the API server has the reason."
    return _answer(status.HTTP_503_SERVICE_UNAVAILABLE, detail)


async def _invalid(_request: Request, error: Exception) -> Response:
    """Say which fields are invalid, without their values."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    fields = (f"{_field(each['loc'])}: {each['msg']}" for each in found[:_MAX_SHOWN])
    return _answer(422, f"Invalid request: {'; '.join(fields)}.")


def _field(location: Sequence[int | str]) -> str:
    """Return the name of a field; somebody may have typed a recipient in place of one."""
    names = [str(each) for each in location[1:]]
    return (
        ".".join(name if re.fullmatch("[a-z_]{1,20}|[0-9]{1,3}", name) else "unknown field" for name in names)
        or "request"
    )


async def _failed(_request: Request, _error: Exception) -> Response:
    return _answer(500, "The request failed. The log of the API server has the reason.")
