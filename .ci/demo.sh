#!/usr/bin/env bash
# The demonstration, end to end, against the server that it brings along: with every mechanism
# it verifies its pages, without any one of them it deadlocks and says who holds the memory.
set -euo pipefail
. "$CI_DIR/lib.sh"
cd "$ROOT"
NETSWAP=$CARGO_TARGET_DIR/release/netswap
OUT=$GATE_TMP/report.json

# judge FILE ARGUMENT...
judge() {
	local file=$1
	shift
	python3 "$CI_DIR/demo_report.py" "$@" < "$file"
}

note "the command of the README"
expect 0 timeout 900 cargo run --locked --release -- --seconds 20 --json > "$OUT"
judge "$OUT" verified --emergency

note "the report as a page"
expect 0 timeout 60 "$NETSWAP" --seconds 2 --report "$GATE_TMP/report.html"
grep -q '<svg' "$GATE_TMP/report.html" || die "the report has no drawing"

note "software paging, without userfaultfd"
expect 0 timeout 60 "$NETSWAP" --seconds 3 --explicit --json > "$OUT"
judge "$OUT" verified

for seed in {1..10}; do
	note "seed $seed"
	expect 0 timeout 60 "$NETSWAP" --seconds 2 --seed "$seed" --json > "$OUT"
	judge "$OUT" verified
done

# Without it, who holds the memory?
for pair in reserve:reserve vmio-filter:socket slab-admission:slab; do
	note "without ${pair%:*}"
	expect 3 timeout 120 "$NETSWAP" --seconds 20 --without "${pair%:*}" --json > "$OUT"
	judge "$OUT" deadlock "${pair#*:}"
done

note "input that is refused"
refused --frobnicate --frobnicate
refused 12parsecs --ram 12parsecs
refused ram --ram 0
refused seconds --seconds 0
refused gravity --without gravity
refused ftp --server ftp://127.0.0.1/export/file
refused nfs --server nfs://
refused stray stray
# Nobody listens on the first port of all.
refused connect --server nfs://127.0.0.1:1/export/file --seconds 2
refused report.html --report /nonexistent/report.html --seconds 1

expect 0 "$NETSWAP" --help > "$GATE_TMP/help"
for option in --server --ram --working-set --flood --seconds --threads --seed --json --report \
	--without --explicit --deadline; do
	grep -qF -- "$option" "$GATE_TMP/help" || die "--help does not mention $option"
done
expect 0 "$NETSWAP" --version
