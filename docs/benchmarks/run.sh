#!/usr/bin/env bash
# Measures everything again, and writes the tables and plots in this folder.
#   bash docs/benchmarks/run.sh [instructions|curves|walltime|emergency|plots]...
# Needs Linux, valgrind and gungraun-runner 0.20.0; docs/BENCHMARKS.md says how to get them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
[ $# -gt 0 ] || set -- instructions curves walltime emergency plots

bench() { cargo bench --locked --quiet --package "$1" --bench "$2" -- "${@:3}"; }
# counted NAME: what callgrind counts, of both crates.
counted() {
	for crate in mempool netreserve; do
		bench "$crate" "$1" --output-format=json
	done | python3 figures.py counts > "$1.csv.new"
	mv "$1.csv.new" "$1.csv"
}

for what in "$@"; do
	case $what in
	instructions | curves) counted "$what" ;;
	walltime)
		bench mempool walltime > walltime.csv
		bench netreserve walltime | tail -n +2 >> walltime.csv
		;;
	emergency) bench mempool emergency > emergency.csv ;;
	plots) python3 figures.py plot . ;;
	*) echo "no such measurement: $what" >&2; exit 2 ;;
	esac
done
