"""The certificate of a server that runs: it follows its files, and nobody who connects can end the process."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from authpipe_rpc import server_credentials
import grpc
from authpipe_testing.ca import CertificateAuthority
from authpipe_testing.ports import free_ports

_SERVER = """
import asyncio, sys
from pathlib import Path
from authpipe_rpc import rotation
import grpc

async def serve(port, key, certificate):
    {mutant}
    server = grpc.aio.server()
    server.add_secure_port(f"127.0.0.1:{{port}}", rotation.server_credentials(key, certificate))
    await server.start()
    print("serves", flush=True)
    await server.wait_for_termination()

asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
"""
_AT_EVERY_HANDSHAKE = "rotation._Files.changed = rotation._Files.first"


class Files:
    """A certificate, its key, and new ones over them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = CertificateAuthority(folder, "ca")
        self.key, self.certificate = folder / "served.key", folder / "served.pem"
        self.renew()

    def renew(self) -> bytes:
        leaf = self._ca.issue(self._folder, "next", common_name="x", dns=("localhost",))
        self.key.unlink(missing_ok=True)
        leaf.key.rename(self.key)
        leaf.certificate.replace(self.certificate)
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text().split("-----END CERTIFICATE-----")[0] + _END)


_END = "-----END CERTIFICATE-----\n"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# The side of somebody who has no certificate and believes any.
_ANYBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_ANYBODY.check_hostname = False
_ANYBODY.verify_mode = ssl.CERT_NONE
_ANYBODY.set_alpn_protocols(["h2"])


async def shown(port: int) -> bytes:
    """Connects and gives the certificate that was shown (DER)."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_ANYBODY)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return bytes(certificate)


async def connect_at_once(port: int, *, times: int, meanwhile: Callable[[], object] | None = None) -> None:
    """Sixty-four who connect and go, again and again; ends early when nobody is there any more."""

    async def again() -> None:
        for _ in range(times // 64):
            try:
                await shown(port)
            except OSError:
                return

    callers = [asyncio.create_task(again()) for _ in range(64)]
    while not all(caller.done() for caller in callers):
        if meanwhile is not None:
            meanwhile()
        await asyncio.sleep(0.1)


@contextmanager
def server(files: Files, mutant: str = "") -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process of its own: it may end."""
    port = free_ports(1)[0]
    command = [sys.executable, "-c", _SERVER.format(mutant=mutant), str(port), str(files.key), str(files.certificate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serves\n"
            yield port, process
        finally:
            process.kill()


async def test_whoever_connects_as_often_as_they_can_does_not_end_the_process(files: Files) -> None:
    with server(files) as (port, process):
        await connect_at_once(port, times=2_000)
        assert process.poll() is None


async def test_nor_do_they_while_the_certificate_changes(files: Files) -> None:
    with server(files) as (port, process):
        await connect_at_once(port, times=2_000, meanwhile=files.renew)
        assert process.poll() is None


async def test_the_attack_sees_a_server_that_takes_its_files_anew_at_every_handshake(files: Files) -> None:
    with server(files, _AT_EVERY_HANDSHAKE) as (port, process):
        await connect_at_once(port, times=20_000)
        assert process.wait(timeout=10) < 0


async def test_whoever_connects_after_a_change_sees_the_new_certificate(files: Files) -> None:
    served = grpc.aio.server()
    port = served.add_secure_port("127.0.0.1:0", server_credentials(files.key, files.certificate))
    await served.start()
    first = await shown(port)
    renewed = files.renew()
    assert first != renewed
    assert await shown(port) == renewed
    await served.stop(None)


@pytest.mark.parametrize("broken", [lambda files: files.key.unlink(), lambda files: files.certificate.write_text("x")])
async def test_files_that_are_no_certificate_leave_what_is_served(
    files: Files, broken: Callable[[Files], object]
) -> None:
    served = grpc.aio.server()
    port = served.add_secure_port("127.0.0.1:0", server_credentials(files.key, files.certificate))
    await served.start()
    before = await shown(port)
    broken(files)
    assert await shown(port) == before
    renewed = files.renew()
    assert await shown(port) == renewed
    await served.stop(None)
