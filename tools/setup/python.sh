# The Python that everything runs on: 3.11 or newer, and compiled with optimisations where there is such a one. Compiled plainly,
# as version managers do unless told otherwise, it takes a third longer for plain loops, and the whole system 5 % longer for a
# token (2,300 a second instead of 2,450). What a distribution ships is optimised, though Debian's does not say so.
optimised() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not ("--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") or os.path.realpath(sys.executable).startswith("/usr/bin/")))'
}

# the_python: prints its path; nothing where there is none.
the_python() {
    local name place plain=""
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        while read -r place; do
            "$place" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
            if optimised "$place"; then
                printf '%s' "$place"
                return
            fi
            plain="${plain:-$place}"
        done < <(type -aP "$name")
    done
    printf '%s' "$plain"
}
