#!/usr/bin/env bash
# A smoke test of the fuzz targets given: each runs for 60 s from its seeds. What it finds goes
# to a temporary corpus, a crash to fuzz/artifacts/, with the command that reproduces it.
#   FUZZ_SECONDS=N   instead of 60
set -euo pipefail
. "$CI_DIR/lib.sh"

command -v c++ > /dev/null || apt_install g++ # libFuzzer is C++
cargo_tool fuzz 0.13.2
# fuzz/ is a workspace of its own, with its own target directory.
unset CARGO_TARGET_DIR
cd "$ROOT"

expected=$(printf '%s\n' "$@" | sort)
present=$(cargo +nightly fuzz list | sort)
[ "$expected" = "$present" ] ||
	die "fuzz targets are ${present//$'\n'/ }, the gate knows ${expected//$'\n'/ }"

note "building the targets"
cargo +nightly fuzz build
for target in "$@"; do
	note "$target"
	corpus=("$GATE_TMP/corpus-$target")
	mkdir -p "${corpus[0]}"
	for seeds in "fuzz/seeds/$target" "fuzz/corpus/$target"; do
		[ ! -d "$seeds" ] || corpus+=("$seeds")
	done
	# Long inputs from the beginning: sequences of operations that are short reach nothing.
	cargo +nightly fuzz run "$target" "${corpus[@]}" -- \
		-max_total_time="${FUZZ_SECONDS:-60}" -len_control=0 -timeout=10 -print_final_stats=1 \
		> "$GATE_TMP/fuzz.log" 2>&1 || {
		tail -n 80 "$GATE_TMP/fuzz.log"
		die "$target found something"
	}
	grep -E 'stat::number_of_executed_units|stat::average_exec_per_sec|^Done' "$GATE_TMP/fuzz.log"
done
