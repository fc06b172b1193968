#!/usr/bin/env bash
# Everything a newcomer's machine needs, each step skipped when its work is done: the second run installs nothing and
# needs no network. `setup.sh run` prepares the system; `setup.sh test` also Node's packages and Chromium, `setup.sh bench` also wrk.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/setup/members.sh
. tools/setup/python.sh
home=.authpipe
umask 077
mkdir -p "$home"
chmod 700 "$home"

say() { printf '\033[2m·\033[0m %s\n' "$1"; }

# system PACKAGE... : installs Debian packages as root or by sudo, or says in one line what to install.
system() {
    local sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo="sudo -n"; else sudo=none; fi
    fi
    if [ "$sudo" = none ] || ! command -v apt-get >/dev/null; then
        echo "Please install what is missing: apt install $* (Fedora: dnf install softhsm postgresql-server nodejs chromium; macOS: brew install softhsm postgresql node chromium)." >&2
        exit 1
    fi
    say "Installing $*"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

missing=()
softhsm() { for place in /usr/lib/softhsm /usr/lib64/pkcs11 /usr/lib64/softhsm /opt/homebrew/lib/softhsm /usr/local/lib/softhsm; do [ ! -e "$place/libsofthsm2.so" ] || return 0; done; return 1; }
softhsm || missing+=(softhsm2)
[ -n "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || command -v initdb >/dev/null || missing+=(postgresql)
[ -n "$(the_python)" ] || missing+=(python3)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v setpriv >/dev/null || [ "$(id -u)" -ne 0 ] || missing+=(util-linux)
if [ "${1:-run}" = test ]; then
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || missing+=(npm)
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
    command -v openssl >/dev/null || missing+=(openssl)
fi
if [ "${1:-run}" = bench ]; then
    command -v wrk >/dev/null || missing+=(wrk)
fi
[ ${#missing[@]} -eq 0 ] || system "${missing[@]}"

uv="$(command -v uv || true)"
if [ -z "$uv" ]; then
    uv="$home/bootstrap/bin/uv"
    if [ ! -x "$uv" ]; then
        say "uv"
        python3 -m venv "$home/bootstrap"
        "$home/bootstrap/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r tools/setup/uv.lock.txt
    fi
fi

python="$(the_python)"
[ -n "$python" ] || { echo "Please install Python 3.11 or newer." >&2; exit 1; }
wanted="$( (echo "$python"; cat requirements.lock; for member in $(members); do cat "$member/pyproject.toml"; done; pwd) | cksum)"
if [ "$(cat "$home/venv/.wanted" 2>/dev/null || true)" != "$wanted" ]; then
    optimised "$python" || say "This Python was compiled without optimisations and is a third slower than a distribution's: $python"
    say "Python packages, by hash"
    [ "$(cat "$home/venv/.python" 2>/dev/null || true)" = "$python" ] || rm -rf "$home/venv"
    [ -x "$home/venv/bin/python" ] || "$uv" venv --quiet --python "$python" "$home/venv"
    printf '%s' "$python" >"$home/venv/.python"
    VIRTUAL_ENV="$PWD/$home/venv" "$uv" pip sync --quiet --require-hashes requirements.lock
    say "Our own members"
    editable=()
    for member in $(members); do editable+=(-e "$member"); done
    VIRTUAL_ENV="$PWD/$home/venv" "$uv" pip install --quiet --no-deps --no-build-isolation --offline "${editable[@]}"
    printf '%s' "$wanted" >"$home/venv/.wanted"
fi
ln -sfn "$home/venv" .venv

if [ "${1:-run}" = test ]; then
    node="$(cat tests/node/package-lock.json | cksum)"
    if [ "$(cat "$home/node/.wanted" 2>/dev/null || true)" != "$node" ]; then
        say "Node packages, by hash: a certified OpenID Provider, buf"
        mkdir -p "$home/node"
        cp tests/node/package.json tests/node/package-lock.json "$home/node/"
        (cd "$home/node" && npm ci --silent --no-audit --no-fund)
        printf '%s' "$node" >"$home/node/.wanted"
    fi
fi
