"""`make promises`: which tests show which promise and case, and how they last ended.

Reads what the last `make test` left in build/results.json, prints it, writes build/promises.json and docs/trust.md, and
fails where a promise or case that an ended issue claimed has no test, or one that did not pass.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What issues have claimed so far; who claims more adds it here.
PROMISES = {
    "P01": "Every credential is AES-256-GCM encrypted before it is written; any change or move is detected and refused.",
    "P02": "TLS 1.3 only, on every socket.",
    "P03": "Each workspace has its own data encryption keys, one set for user credentials and one for client secrets.",
    "P04": "They are wrapped by a key that lives in an HSM, is not extractable and never leaves it.",
    "P05": "One workspace's keys open nothing of another workspace.",
    "P06": "KEK rotation is automatic and on demand, and not one request fails.",
    "P07": "A credential never appears in logs, errors, dumps, traces or metrics.",
    "P08": "Listings show only a masked prefix.",
    "P09": "A credential is decrypted only for a named purpose, by the service allowed that purpose.",
    "P10": "Client secrets and user credentials live apart; taking over one store gives nothing of the other.",
    "P11": "Disconnect revokes at the Provider and deletes what is stored.",
    "P12": "What is kept for reconnection is sealed, is not served, and is purged after at most 30 days.",
    "P13": "PKCE (S256) on every authorization; it cannot be turned off.",
    "P14": "Every flow has a random state, bound to its browser, used once, short-lived.",
    "P15": "Redirect URIs are compared exactly; wildcards are refused.",
    "P16": "Every endpoint that changes state is protected from CSRF.",
    "P18": "A workspace's keys can be wrapped by the customer's own KMS.",
    "P24": "Databases accept only mutual TLS.",
    "P26": "Unusual access, unusual refreshes and possible exposure are detected and raised.",
    "P27": "One action rotates every token of a workspace, provider configuration or the whole installation; customers are told.",
    "P29": "Erasure of one connection or end user is permanent and touches nothing else.",
    "P30": "Minimal scopes, mandatory PKCE and proper revocation for every Provider.",
    "P31": "Every use and change is in a log that cannot be changed unnoticed by anyone with its public key.",
    "P32": "Retention by plan.",
    "P33": "The log is available through dashboard and API.",
    "P34": "SECURITY.md and /.well-known/security.txt.",
    "P36": "However many ask at once, the Provider sees one refresh at a time, and no refresh token is lost.",
    "P37": "A catalog of Providers; any standards-compliant one works from its issuer URL alone.",
}
CASES = {
    1: "Ciphertexts exchanged between connections, workspaces, classes, versions",
    2: "Yesterday's row put back after a refresh",
    3: "Every byte flipped, every length cut",
    4: "Format or suite unknown or older",
    5: "Context boundary games",
    6: "Wrapped keys copied between workspaces and connections",
    7: "KEK and DEK rotated continuously under readers and writers",
    8: "The re-wrapper killed at each step; two of them racing",
    9: "keyservice called by its own store, with every wrong grant",
    10: "Serve asking for refresh; refresh before due or with an old fence",
    11: "Memory of vault; core files",
    12: "A valid vault certificate and valid grants, as fast as possible",
    13: "HSM: errors, removed, session invalid, hangs",
    14: "A superuser inserts, re-activates, widens, moves",
    15: "Wrong identities, methods, TLS versions, plaintext",
    16: "Another workspace's ids through every operation",
    17: "A slow KMS of one tenant (of floods: the bounds of case 12)",
    18: "Mix-up of Providers",
    19: "Callbacks in other browsers, used, foreign, missing, twice at once",
    20: "Redirect URI variants",
    21: "A hostile Provider on the network",
    23: "The worker killed at every step between answer and commit",
    24: "A part away before the call: the Provider saw no call",
    25: "200 callers over four replicas, the lease holder stopped for a minute",
    26: "Revocation answered in every way, or never",
    27: "The customer's KMS disabled, throttled, hanging, deleted",
    28: "audit down, hanging, its disk full; no sink: does not start",
    29: "A superuser changes, deletes, reorders, inserts events",
    30: "Bodies deleted by retention, and otherwise",
}
# The rest of what we promise, and of what is to be staged; it moves up when an issue claims it.
LATER_PROMISES = {
    "P17": "Control plane and data plane can be run apart.",
    "P19": "The token proxy is open source under MIT and runs on its own.",
    "P20": "A workspace's credentials stay in the region it chose.",
    "P21": "Kubernetes: automated deployment, rolling updates without failed requests, one-step rollback.",
    "P22": "Infrastructure is code; changes leave an immutable trail.",
    "P23": "Token storage has no internet access and is reached only through the API layer.",
    "P25": "Infrastructure secrets come from a secrets manager and rotate; certificates rotate without a restart.",
    "P28": "The attack surface is tested in CI as an attacker would.",
    "P35": "React SDK and backend SDKs under MIT.",
    "P38": "Workspaces, team members with roles, API keys with scopes, dashboard login.",
}
LATER_CASES = {
    22: "A provider configuration's token URL is changed afterwards",
}


def main() -> None:
    """Reads, prints, writes, judges."""
    results = ROOT / "build" / "results.json"
    if not results.exists():
        sys.exit("There is no result yet; run make test first.")
    claimed = PROMISES | {f"case-{number}": text for number, text in CASES.items()}
    later = LATER_PROMISES | {f"case-{number}": text for number, text in LATER_CASES.items()}
    shown: dict[str, dict[str, bool]] = {key: {} for key in [*claimed, *later]}
    for test, entry in json.loads(results.read_text()).items():
        for key in entry["shows"]:
            shown.setdefault(key, {})[test] = entry["passed"]
    report = {
        key: {"tests": sorted(tests), "passed": bool(tests) and all(tests.values())} for key, tests in shown.items()
    }
    (ROOT / "build" / "promises.json").write_text(json.dumps(report, indent=1))
    missing = []
    for key, entry in report.items():
        if key not in claimed and key not in later:
            sys.exit(f"A test shows {key}, which nobody has promised.")
        mark = "\033[32mshown\033[0m" if entry["passed"] else "\033[31mNOT\033[0m  " if key in claimed else "later"
        print(f"{mark}  {key:8} {len(entry['tests']):3} tests  {claimed.get(key) or later[key]}")
        for test, passed in sorted(shown[key].items()):
            if not passed:
                print(f"           failed: {test}")
        if not entry["passed"] and key in claimed:
            missing.append(key)
    write_page(report)
    if missing:
        sys.exit(f"Not shown by a passing test: {', '.join(missing)}.")


def write_page(report: dict[str, dict[str, object]]) -> None:
    """Writes docs/trust.md: what a customer reads."""
    lines = [
        "# Which test shows which promise",
        "",
        "Made by `make promises` from the last run of all tests; do not edit.",
        "",
    ]
    for title, words in (
        ("Promises", dict(PROMISES)),
        ("Attacks that are staged", {f"case-{n}": w for n, w in CASES.items()}),
        ("Not claimed yet", LATER_PROMISES | {f"case-{n}": w for n, w in LATER_CASES.items()}),
    ):
        lines += [f"## {title}", "", "| id | what | shown by |", "|---|---|---|"]
        for key, text in words.items():
            tests = report[key]["tests"]
            assert isinstance(tests, list)
            names = sorted({test.split("[")[0] for test in tests})
            lines.append(f"| {key} | {text} | {'<br>'.join(f'`{name}`' for name in names) or 'nothing yet'} |")
        lines.append("")
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "trust.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
