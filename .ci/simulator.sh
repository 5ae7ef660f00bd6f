#!/usr/bin/env bash
# The simulator's part of the gate.
#   bash .ci/simulator.sh PATH-TO-SIMULATOR
#   SIMULATOR_SEEDS=N    instead of 10,000 of each mode
set -euo pipefail
. "$CI_DIR/lib.sh"
simulator=$1

note "corpus"
"$simulator" replay "$ROOT/examples/simulator/corpus"

note "the same seed is the same run, in debug and release"
cargo build --locked --package simulator
for seed in 1 7 11 14 69; do
	for mode in within beyond; do
		args=(run --seed "$seed" --mode "$mode" --quiet)
		first=$("$simulator" "${args[@]}")
		[ "$first" = "$("$simulator" "${args[@]}")" ] || die "seed $seed $mode: two runs differ"
		[ "$first" = "$("$CARGO_TARGET_DIR/debug/simulator" "${args[@]}")" ] ||
			die "seed $seed $mode: debug and release differ"
		printf '%s %s: %s\n' "$seed" "$mode" "$(head -n 1 <<< "$first")"
	done
done

note "every mechanism is missed when it is left out"
"$simulator" ablate --table "$ROOT/docs/ABLATION.md"

note "every interleaving of a small system"
"$simulator" explore > "$GATE_TMP/explored" || { cut -c1-300 "$GATE_TMP/explored"; die "something goes wrong in it"; }
grep -E '^rings|states' "$GATE_TMP/explored"

note "an unknown mechanism is an error"
! "$simulator" ablate no-such-mechanism 2> "$GATE_TMP/unknown" || die "it was accepted"
grep -q "no mechanism 'no-such-mechanism'" "$GATE_TMP/unknown"

note "how tight the reserves are"
"$simulator" budgets --table "$ROOT/docs/BUDGETS.md"

note "16 KiB frames"
export MEMPOOL_FRAME_SIZE=16384
large="$CARGO_TARGET_DIR/16k"
CARGO_TARGET_DIR="$large" cargo build --locked --release --package simulator
CARGO_TARGET_DIR="$large" cargo test --locked --lib --all-features \
	--package mempool --package netreserve --package swapspace --package nfs-swap
"$large/release/simulator" budgets --table "$ROOT/docs/BUDGETS.md"
"$large/release/simulator" replay "$ROOT/examples/simulator/corpus"
"$large/release/simulator" seeds --mode both --count "$((${SIMULATOR_SEEDS:-10000} / 10))"
unset MEMPOOL_FRAME_SIZE

note "seeds"
"$simulator" seeds --mode both --count "${SIMULATOR_SEEDS:-10000}"
