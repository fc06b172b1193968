"""What clusters share, when they are started side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from authpipe_testing.ca import CertificateAuthority
from authpipe_testing.postgres import Cluster
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def test_clusters_that_ask_for_a_roles_certificate_at_once_get_one_with_its_own_key(tmp_path: Path) -> None:
    ca = CertificateAuthority(tmp_path / "ca", "database-ca")
    for number in range(20):
        certificates, together = tmp_path / str(number), Barrier(8)
        cluster = Cluster("vault", tmp_path / "data", 1, ca, certificates, ("vault",), tmp_path / "log")

        def ask(cluster: Cluster = cluster, together: Barrier = together) -> None:
            together.wait()
            cluster.client("dba")

        with ThreadPoolExecutor(8) as pool:
            for each in [pool.submit(ask) for _ in range(8)]:
                each.result()
        certificate = x509.load_pem_x509_certificate((certificates / "db-dba.pem").read_bytes())
        key = load_pem_private_key((certificates / "db-dba.key").read_bytes(), None)
        assert certificate.public_key() == key.public_key()
