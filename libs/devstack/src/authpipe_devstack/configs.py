"""The configuration file of each process: whom it may call, where its files are. Secrets in it are paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from authpipe_devstack.layout import DEPLOYMENT, LOG_NAME, REGION, TRAILS, TRUST_DOMAIN, Layout, Process
from authpipe_testing.ca import CertificateAuthority, Leaf, write_private
from authpipe_testing.postgres import Cluster
from authpipe_testing.softhsm import find_module

_PEERS = {
    "audit": {"signer": "keyservice/audit-log"},
    "keyservice-audit-log": {},
    "keyservice-user-credentials": {"audit": "audit"},
    "keyservice-client-secrets": {"audit": "audit"},
    "vault": {"keyservice": "keyservice/user-credentials", "audit": "audit"},
    "clientsecrets": {"keyservice": "keyservice/client-secrets", "audit": "audit"},
    "authority": {"audit": "audit"},
    "herald": {"audit": "audit", "authority": "gateway/authority"},
    "worker": {"vault": "vault", "clientsecrets": "clientsecrets", "coordinator": "oauth/coordinator"},
    "coordinator": {
        "worker": "oauth/worker",
        "vault": "vault",
        "clientsecrets": "clientsecrets",
        "audit": "audit",
    },
    "edge": {
        "authority": "gateway/authority",
        "vault": "vault",
        "clientsecrets": "clientsecrets",
        "coordinator": "oauth/coordinator",
        "worker": "oauth/worker",
        "audit": "audit",
    },
}


class Configs:
    """Writes configuration files.

    Args:
        layout: What runs where.
        ca: The CA of our processes.
        public_ca: The CA of what customers and browsers meet.
        clusters: The clusters by name.
        log_level: debug, info, warning or error.
        trace_ratio: The share of traces kept.
        settings: More settings of a process, by its name.
    """

    def __init__(  # one per part
        self,
        layout: Layout,
        ca: CertificateAuthority,
        public_ca: CertificateAuthority,
        clusters: dict[str, Cluster],
        log_level: str,
        trace_ratio: float,
        settings: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._layout = layout
        self._ca = ca
        self._public_ca = public_ca
        self._clusters = clusters
        self._log_level = log_level
        self._trace_ratio = trace_ratio
        self._settings = settings
        self._addresses = {
            identity: layout.addresses(name)
            for name, identity in (
                ("audit", "audit"),
                ("keyservice-audit-log", "keyservice/audit-log"),
                ("keyservice-user-credentials", "keyservice/user-credentials"),
                ("keyservice-client-secrets", "keyservice/client-secrets"),
                ("vault", "vault"),
                ("clientsecrets", "clientsecrets"),
                ("authority", "gateway/authority"),
                ("worker", "oauth/worker"),
                ("coordinator", "oauth/coordinator"),
            )
        }

    def files(self, name: str) -> dict[str, str]:
        """Gives who a process is."""
        leaf = Leaf(self._layout.certificates / f"{name}.pem", self._layout.certificates / f"{name}.key")
        return {
            "certificate": str(leaf.certificate),
            "key": str(leaf.key),
            "ca": str(self._ca.certificate_file),
            "trust_domain": TRUST_DOMAIN,
        }

    def write(self, process: Process) -> None:
        """Writes the configuration of a process."""
        layout, name = self._layout, process.name
        peers = _PEERS[process.replica_of or name]
        config: dict[str, Any] = {
            "files": self.files(name),
            "server": {"host": "127.0.0.1", "port": layout.ports[name]},
            "log_level": self._log_level,
            "telemetry_file": str(layout.logs / f"{name}.telemetry.json"),
            "trace_ratio": self._trace_ratio,
            "region": REGION,
            **{key: {"name": identity, "address": self._addresses[identity]} for key, identity in peers.items()},
        }
        if process.database:
            config["database"] = self.database(process, process.database)
        match process.replica_of or name:
            case "authority":
                config["mac_key_file"] = str(layout.mac_key_file)
                config["dashboard_url"] = layout.dashboard_url
            case "audit":
                config["origin"] = LOG_NAME
                config["watch_database"] = {**self.database(process, "audit_watch"), "pool_size": 1}
                config["retention_database"] = {**self.database(process, "audit_retention"), "pool_size": 1}
            case "herald":
                webhook = {"name": "playground", "url": f"{layout.playground_issuer}/playground/alarms"}
                webhook |= {"ca": str(self._public_ca.certificate_file), "secret_file": str(layout.alarm_secret_file)}
                config |= {"webhooks": [webhook], "tell_seconds": 1.0}
            case "worker":
                config |= {"deployment": DEPLOYMENT, "unsafe_allow_loopback": True}
                config["provider_ca"] = str(self._public_ca.certificate_file)
                config["spool"] = str(layout.home / "spool" / name)
            case "edge":
                config |= {
                    "deployment": DEPLOYMENT,
                    "public_url": layout.rest_url,
                    "rest": {"host": "127.0.0.1", "port": layout.ports["rest"]},
                    "grpc": {"host": "127.0.0.1", "port": layout.ports["grpc"]},
                    "public_certificate": str(layout.certificates / "public.pem"),
                    "public_key": str(layout.certificates / "public.key"),
                }
            case _ if process.hsm:
                config |= {
                    "key_domain": process.hsm,
                    "deployment": DEPLOYMENT,
                    "pkcs11_module": str(find_module()),
                    "token_label": process.hsm,
                    "pin_file": str(layout.home / "hsm" / process.hsm / "pin"),
                }
                if process.hsm == "audit-log":
                    config["origins"] = [f"{LOG_NAME}/{trail}" for trail in TRAILS]
            case _:
                pass
        config |= self._settings.get(process.replica_of or name, {})
        write_private(layout.configs / f"{name}.json", json.dumps(config, indent=1).encode())

    def write_operator(self, name: str) -> None:
        """Writes the configuration of `authpipe-admin` for an operator."""
        domains = {"user-credentials", "client-secrets"}
        config = {
            "files": self.files(name),
            "keyservices": {
                domain: {"name": f"keyservice/{domain}", "address": self._addresses[f"keyservice/{domain}"]}
                for domain in sorted(domains)
            },
            "coordinator": {"name": "oauth/coordinator", "address": self._addresses["oauth/coordinator"]},
            "stores": {name: {"name": name, "address": self._addresses[name]} for name in ("vault", "clientsecrets")},
            "audit": {"name": "audit", "address": self._addresses["audit"]},
            "authority": {"name": "gateway/authority", "address": self._addresses["gateway/authority"]},
        }
        write_private(self._layout.configs / f"{name}.json", json.dumps(config, indent=1).encode())

    def database(self, process: Process, role: str) -> dict[str, Any]:
        """Gives where a process's database is, for a role."""
        cluster = self._clusters[process.cluster]
        leaf = cluster.client(role)
        return {
            "host": cluster.host,
            "address": "127.0.0.1",
            "port": cluster.port,
            "name": process.database,
            "user": role,
            "certificate": str(leaf.certificate),
            "key": str(leaf.key),
            "ca": str(cluster.ca.certificate_file),
        }
