"""The server: one page for annotators, one for the researcher; every address holds a token, and all others are refused.

Headers are the same for every result; nothing is loaded from elsewhere; writes from another origin are refused.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sipo.annotate.desk import Desk, sound_seconds
from sipo.annotate.store import Person, Refused, State

PAGE = resources.files("sipo.annotate") / "page"
FILES = {
    "app.js": "text/javascript", "admin.js": "text/javascript", "media.js": "text/javascript", "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}  # fmt: skip
MAX_BODY = 64_000  # bytes
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "X-Frame-Options": "DENY",
}  # fmt: skip
FIXED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


@dataclass(frozen=True)
class Admin:
    """What the researcher's page needs: who is let in, the progress, and the switch of the study's state."""

    is_researcher: Callable[[str], bool]
    progress: Callable[[], dict]
    set_state: Callable[[State], None]


class Vote(BaseModel):
    """seconds: from the moment all results were visible to the answer."""

    model_config = ConfigDict(extra="forbid")
    slot: int = Field(ge=0, lt=2**31)
    vote: str = Field(pattern=r"^[0-9a-f]{32}$")
    answer: Any
    seconds: float | None = None


class Undo(BaseModel):
    model_config = ConfigDict(extra="forbid")
    vote: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")


class Switch(BaseModel):
    model_config = ConfigDict(extra="forbid")
    state: State


def make_app(desk: Desk, texts: dict[str, str], admin: Admin | None = None) -> FastAPI:
    """The application of a desk. texts: see `read_texts`."""
    quiet: dict[str, Any] = {"telemetry": {"auto_configure": False}}  # it would report addresses, which hold tokens
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, **quiet)
    app.include_router(_annotators(desk, texts))
    if admin:
        app.include_router(_researcher(admin, texts))
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_middleware(Guard, desk=desk, admin=admin)
    return app


async def _person(request: Request) -> Person:
    """Whom `Guard` let in."""
    return request.state.person


Known = Annotated[Person, Depends(_person)]


def _annotators(desk: Desk, texts: dict[str, str]) -> APIRouter:
    router = APIRouter(prefix="/a/{token}")

    @router.get("/")
    def page(person: Known) -> Response:
        return _file("index.html", "text/html")

    @router.get("/page/{name}")
    def part(person: Known, name: str) -> Response:
        return _part(name, texts)

    @router.get("/config")
    def config(person: Known) -> dict:
        return desk.config(person)

    @router.get("/state")
    def state(person: Known) -> dict:
        return desk.look(person)

    @router.get("/media/{name}")
    def medium(person: Known, name: str) -> Response:
        if (found := desk.medium(person, name)) is None:
            raise HTTPException(410)
        return Response(found[0], media_type=found[1])

    @router.post("/vote")
    def vote(person: Known, body: Vote) -> Response:
        try:
            desk.vote(person, body.slot, body.vote, body.answer, sound_seconds(body.seconds))
        except Refused as reason:
            return JSONResponse({"refused": str(reason)} | desk.look(person), 409)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return JSONResponse(desk.look(person))

    @router.post("/undo")
    def undo(person: Known, body: Undo) -> Response:
        try:
            desk.undo(person, body.vote)
        except Refused as reason:
            return JSONResponse({"refused": str(reason)} | desk.look(person), 409)
        return JSONResponse(desk.look(person))

    return router


def _researcher(admin: Admin, texts: dict[str, str]) -> APIRouter:
    router = APIRouter(prefix="/admin/{token}")

    @router.get("/")
    def page() -> Response:
        return _file("admin.html", "text/html")

    @router.get("/page/{name}")
    def part(name: str) -> Response:
        return _part(name, texts)

    @router.get("/progress")
    def progress() -> dict:
        return admin.progress()

    @router.post("/state")
    def switch(body: Switch) -> dict:
        admin.set_state(body.state)
        return admin.progress()

    return router


def _file(name: str, type: str) -> Response:
    return Response((PAGE / name).read_bytes(), media_type=f"{type}; charset=utf-8" if "svg" not in type else type)


def _part(name: str, texts: dict[str, str]) -> Response:
    if name == "texts.json":
        return JSONResponse(texts)
    if name not in FILES:
        raise HTTPException(404)
    return _file(name, FILES[name])


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return JSONResponse({"detail": error.detail if error.status_code == 422 else ""}, error.status_code)


def _malformed(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "The request is malformed."}, 422)


@dataclass(frozen=True)
class Guard:
    """Stands before all routes: without a token 401, with a wrong one 403, whatever the address. Writes come from our own
    page, as JSON of bounded size. Adds the same headers to every answer.
    """

    app: ASGIApp
    desk: Desk
    admin: Admin | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *FIXED]
            await send(message)

        code = await run_in_threadpool(self._objection, scope)
        if code:
            await Response(status_code=code)(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)

    def _objection(self, scope: Scope) -> int | None:
        """The status with which a request is refused; None where it is let in, with its person in `scope`."""
        where, token = [*scope["path"].split("/"), "", ""][1:3]
        if where not in ("a", "admin") or not token:
            return 401
        if where == "admin":
            if self.admin is None or not self.admin.is_researcher(token):
                return 403
        else:
            if (person := self.desk.person(token)) is None:
                return 403
            scope.setdefault("state", {})["person"] = person
        return None if scope["method"] in ("GET", "HEAD") else _unsafe(Request(scope))


def _unsafe(request: Request) -> int | None:
    """The status with which a write is refused, None where it is not."""
    headers = request.headers
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if (origin and origin.partition("://")[2] != headers.get("host")) or site not in (None, "same-origin"):
        return 403
    if not headers.get("content-length", "").isdecimal():
        return 411
    if int(headers["content-length"]) > MAX_BODY:
        return 413
    return None if headers.get("content-type", "").partition(";")[0] == "application/json" else 415


def read_texts(own: str | None = None) -> dict[str, str]:
    """The page's texts: English, or a translation of page/texts.json. Raises ValueError where keys are missing or unknown."""
    english = json.loads((PAGE / "texts.json").read_text(encoding="utf-8"))
    if own is None:
        return english
    texts = json.loads(own)
    if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
        raise ValueError("expected an object of texts")
    missing, unknown = sorted(english.keys() - texts.keys()), sorted(texts.keys() - english.keys())
    if missing or unknown:
        raise ValueError(f"missing: {', '.join(missing) or 'nothing'}; unknown: {', '.join(unknown) or 'nothing'}")
    return texts
