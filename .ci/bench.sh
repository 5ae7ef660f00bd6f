#!/usr/bin/env bash
# The benchmarks' part of the gate: instructions against their bounds, and urgent requests served.
#   bash .ci/bench.sh
# Wall time is not looked at: a machine that others use has none to show.
set -euo pipefail
. "$CI_DIR/lib.sh"

apt_install valgrind
# The benchmarks and their runner must be of one version.
program gungraun-runner "$(sed -n '/^name = "gungraun-runner"$/{n;s/^version = "\(.*\)"$/\1/p}' "$ROOT/Cargo.lock")"

note "instructions"
for crate in mempool netreserve; do
	cargo bench --locked --quiet --package "$crate" --bench instructions -- --output-format=json
done > "$GATE_TMP/instructions.json"
python3 -B "$ROOT/docs/benchmarks/figures.py" counts < "$GATE_TMP/instructions.json" \
	> "$GATE_TMP/instructions.csv"
python3 -B "$ROOT/docs/benchmarks/figures.py" check "$ROOT/docs/benchmarks/bounds.csv" \
	< "$GATE_TMP/instructions.csv"

note "urgent requests amid ordinary demand without bounds"
cargo bench --locked --quiet --package mempool --bench emergency > "$GATE_TMP/emergency.csv" || {
	cat "$GATE_TMP/emergency.csv"
	die "an urgent request had to wait"
}
cut -d, -f1-6 "$GATE_TMP/emergency.csv"
