#!/bin/bash
# Breaks one rule of the programs at a time, and shows whether the simulation finds it.
#
#     tests/simulation/breaks/run.sh             # all patches
#     tests/simulation/breaks/run.sh NAME...     # some of them, without .patch
#     tests/simulation/breaks/run.sh --check     # only whether they apply
#
# SESSIONS (40000), SEED (12). TARGET: a folder for what is built, kept for the next run. Each patch is applied to a copy of
# what is committed. Claims count that the unbroken programs do not violate, or far less often.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(git -C "$here" rev-parse --show-toplevel)
seed=${SEED:-12}
sessions=${SESSIONS:-40000}

if [ "${1:-}" = --check ]; then
    failed=0
    for patch in "$here"/*.patch; do
        git -C "$root" apply --check "$patch" || failed=1
    done
    exit $failed
fi

temporary=$(mktemp -d)
tree=$temporary/tree
trap 'git -C "$root" worktree remove --force "$tree"; rm -rf "$temporary"' EXIT
git -C "$root" worktree add --quiet --detach "$tree" HEAD

# Quick to build again: what is measured here is what is found, not the time it takes.
export CARGO_TARGET_DIR=${TARGET:-$temporary/target}
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64
export CARGO_PROFILE_RELEASE_INCREMENTAL=true CARGO_PROFILE_RELEASE_OPT_LEVEL=1

# Writes "claim, tab, sessions, tab, first session that violates it" for each claim.
simulate() {
    local log=$temporary/log
    (cd "$tree" && SESSIONS=$sessions SEED=$seed QUIET=1 SHOW=0 \
        nice cargo test --quiet --release --lib simulation::sessions -- --nocapture) >"$log" 2>&1 || true
    if ! grep -q '^simulation: ' "$log"; then
        tail -n 20 "$log" >&2
        return 1
    fi
    sed -n 's/^ *\([0-9]*\)  VIOLATED \(.*\) (seed \([0-9]*\))$/\2\t\1\t\3/p' "$log" |
        awk -F'\t' -v seed="$seed" -v OFS='\t' '{ print $1, $2, $3 - seed * 1000000007 + 1 }'
}

echo "unbroken:"
simulate >"$temporary/base"
awk -F'\t' '{ printf "    %6d sessions, first in %5d: %s\n", $2, $3, $1 }' "$temporary/base"

not_found=0
[ $# -gt 0 ] || set -- $(cd "$here" && ls -- *.patch)
for name; do
    name=${name%.patch}
    if ! git -C "$tree" apply "$here/$name.patch"; then
        echo "$name: does not apply"
        not_found=1
        continue
    fi
    if ! simulate >"$temporary/broken"; then
        echo "$name: does not build or run"
        not_found=1
    else
        awk -F'\t' -v name="$name" '
            FILENAME == ARGV[1] { base[$1] = $2; next }
            !($1 in base) || $2 > 3 * base[$1] + 10 {
                if (!count++ || $3 < first) first = $3
                lines = lines sprintf("    %6d sessions, first in %5d: %s\n", $2, $3, $1)
            }
            END {
                printf "%s: %s\n%s", name, count ? "found in session " first : "NOT FOUND", lines
                exit !count
            }' "$temporary/base" "$temporary/broken" || not_found=1
    fi
    git -C "$tree" checkout --quiet -- .
done
exit $not_found
