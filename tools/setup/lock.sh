#!/usr/bin/env bash
# Pins everything with hashes: one lock for the workspace, one for each member by which it is installed alone.
# The locks carry no download address.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/setup/members.sh
export UV_NO_PROGRESS=1
uv="${UV:-uv}"
own=()
for member in $(members); do own+=(--no-emit-package "$(sed -n 's/^name = "\(.*\)"/\1/p' "$member/pyproject.toml" | head -1)"); done
options=(--quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate --no-header "${own[@]}")
files=()
for member in $(members); do files+=("$member/pyproject.toml"); done
"$uv" pip compile "${options[@]}" --group dev -o requirements.lock "${files[@]}"
echo "requirements.lock"
printf 'uv\n' | "$uv" pip compile --quiet --universal --generate-hashes --no-annotate --no-header -o tools/setup/uv.lock.txt - >/dev/null
for member in $(members); do
    "$uv" pip compile "${options[@]}" -c requirements.lock -o "$member/requirements.lock" "$member/pyproject.toml"
    echo "$member/requirements.lock"
done
