"""npm `oidc-provider` as a process: certified, refresh tokens rotate, and one that is used twice ends its family."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from authpipe_testing.ca import write_private
from authpipe_testing.ports import free_ports

CLIENT_ID = "authpipe-e2e"


@dataclass(frozen=True)
class OidcProvider:
    """The Provider, as its operator sees it.

    Args:
        issuer: Where it is.
        client_secret: Of its clients, to begin with.
        assertion_key: With which `the-service` signs assertions; PEM.
        http: To it.
    """

    issuer: str
    client_secret: str = field(repr=False)
    assertion_key: str = field(repr=False)
    http: httpx2.Client

    def counts(self) -> dict[str, int]:
        """Says how often which grant came, and how often it ended in an error."""
        return dict(self.http.get("/test/counts").json())

    def set_life(self, seconds: int) -> None:
        """Sets how long new access tokens live."""
        self.http.get("/test/life", params={"seconds": seconds})

    def set_pause(self, seconds: float) -> None:
        """Sets how long a token request takes."""
        self.http.get("/test/pause", params={"seconds": seconds})

    def set_secret(self, secret: str) -> None:
        """Changes the client's secret: from now on no other is taken."""
        self.http.post("/test/secret", json={"secret": secret})

    def seed(self, count: int) -> list[dict[str, str]]:
        """Gives the tokens of so many accounts, as if they had been connected."""
        return list(self.http.get("/test/seed", params={"count": count}).json())

    def living(self, access_tokens: Sequence[str]) -> list[bool]:
        """Says which access tokens live."""
        return list(self.http.post("/test/living", json=list(access_tokens)).json())


@contextlib.contextmanager
def run_oidc_provider(
    root: Path, home: Path, certificates: Path, ca_file: Path, redirect_uri: str
) -> Iterator[OidcProvider]:
    """Runs the Provider, over TLS 1.3.

    Args:
        root: The folder of the project.
        home: Where its settings and output go.
        certificates: Where `public.pem` and `public.key` are.
        ca_file: The CA to believe.
        redirect_uri: Of its one client.
    """
    node = root / ".authpipe" / "node"
    shutil.copy(root / "tests" / "node" / "provider.mjs", node / "provider.mjs")
    port, secret = free_ports(1)[0], secrets.token_hex(24)
    assertion_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = assertion_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = assertion_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    settings = {
        "port": port,
        "certificate": str(certificates / "public.pem"),
        "key": str(certificates / "public.key"),
        "redirect_uri": redirect_uri,
        "client_secret": secret,
        "assertion_key": public.decode(),
    }
    file = home / "oidc-provider.json"
    write_private(file, json.dumps(settings).encode())
    with (home / "oidc-provider.out").open("wb") as out:
        process = subprocess.Popen(["node", "provider.mjs", str(file)], cwd=node, stdout=out, stderr=out)
    issuer = f"https://127.0.0.1:{port}"
    context = ssl.create_default_context(cafile=str(ca_file))
    with httpx2.Client(base_url=issuer, verify=context, trust_env=False, timeout=60) as http:
        for _ in range(100):
            with contextlib.suppress(httpx2.HTTPError):
                http.get("/test/counts")
                break
            time.sleep(0.1)
        try:
            yield OidcProvider(issuer, secret, private.decode(), http)
        finally:
            process.terminate()
            process.wait(10)
