"""The witness's HTTP side: POST /add-checkpoint, as C2SP tlog-witness has it."""

from __future__ import annotations

import time
from pathlib import Path

from authpipe_transparency import FormatError, cosign
from authpipe_transparency.witnessing import AddCheckpoint, WitnessRefusal, checkpoint_of, require_extension
from authpipe_witness.home import Home
from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_LONGEST_BODY = 1 << 16


def application(home: Home) -> Starlette:
    """Makes the application of a witness."""

    async def add_checkpoint(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LONGEST_BODY:
                return Response(status_code=400)
        return await run_in_threadpool(answer, home, body, int(time.time()))

    return Starlette(routes=[Route("/add-checkpoint", add_checkpoint, methods=["POST"])])


def answer(home: Home, body: bytes, now: int) -> Response:
    """Answers a request: a cosignature, or why there is none."""
    try:
        asked = AddCheckpoint.parse(body.decode())
        checkpoint = checkpoint_of(asked, home.logs)
        home.replace(checkpoint, lambda cosigned: require_extension(asked, checkpoint, cosigned))
    except (FormatError, UnicodeDecodeError):
        return Response(status_code=400)
    except WitnessRefusal as refused:
        if refused.size is None:
            return Response(status_code=refused.status)
        return Response(f"{refused.size}\n", status_code=refused.status, media_type="text/x.tlog.size")
    return PlainTextResponse(str(cosign(home.key, checkpoint.text, now, home.sign)))


def server(home: Home, host: str, port: int, certificate: Path, key: Path) -> Server:
    """Makes the listener: TLS 1.3 alone, which is granian's minimum."""
    return Server(
        application(home), address=host, port=port, interface=Interfaces.ASGI, ssl_cert=certificate, ssl_key=key,
        websockets=False, log_enabled=False,
    )  # fmt: skip
