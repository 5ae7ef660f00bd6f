#!/usr/bin/env bash
# The swap path against a server that is not ours, nfs-ganesha: the demonstration leaves the
# server as it found it, survives its SIGKILL, and the conformance suite passes; a swap file under load
# bears what may happen to the server and to the file.
set -euo pipefail
. "$CI_DIR/lib.sh"
cd "$ROOT"
apt_install nfs-ganesha nfs-ganesha-vfs inotify-tools

export GANESHA_DIR=$GATE_TMP/ganesha
NETSWAP=$CARGO_TARGET_DIR/release/netswap
OUT=$GATE_TMP/report.json
EXPORT=$(bash "$CI_DIR/ganesha.sh" dir)
URL=$(bash "$CI_DIR/ganesha.sh" url swap)

ganesha() { bash "$CI_DIR/ganesha.sh" "$1"; }
demo=
finish() {
	[ -z "$demo" ] || kill "$demo" 2>/dev/null || true
	ganesha clean
}
trap finish EXIT

judge() { python3 "$CI_DIR/demo_report.py" verified "$@" < "$OUT"; }

left_clean() {
	[ -z "$(ls -A "$EXPORT")" ] || die "left on the server: $(ls -lA "$EXPORT")"
}

# The server read N times from an exported file: pages are coming in. No read for 30 s is an error.
pages_come_in() {
	local reads
	reads=$(timeout 30 inotifywait -q -m -e access --format x "$EXPORT" 2>/dev/null |
		head -n "$1" | wc -l) || true
	[ "$reads" -eq "$1" ] || die "the server saw $reads reads, not $1"
}

cargo build --locked --release --package netswap
ganesha start

note "the demonstration, its file made and removed"
expect 0 timeout 120 "$NETSWAP" --server "$URL" --seconds 10 --json > "$OUT"
judge --emergency
left_clean

note "the demonstration while the server is killed and comes back, twice"
timeout 180 "$NETSWAP" --server "$URL" --seconds 25 --json > "$OUT" &
demo=$!
for _ in 1 2; do
	pages_come_in 200
	ganesha kill9
	ganesha start
	kill -0 "$demo" || die "the demonstration ended while its server was away"
done
pages_come_in 200
status=0
wait "$demo" || status=$?
demo=
[ "$status" -eq 0 ] || die "exit status $status: $(cat "$OUT")"
judge
left_clean

note "what happens to a server and to a file under load"
NFS_SWAP_GANESHA=$CI_DIR/ganesha.sh \
	cargo test --locked --package nfs-swap --all-features --test ganesha

note "a file and an export that cannot serve"
truncate -s 64K "$EXPORT/small"
refused small --server "$(bash "$CI_DIR/ganesha.sh" url small)" --seconds 2
[ "$(stat -c %s "$EXPORT/small")" -eq 65536 ] || die "the refused file was changed"
rm "$EXPORT/small"
absent=$(bash "$CI_DIR/ganesha.sh" url swap)
refused mount --server "${absent/export/absent}" --seconds 2
left_clean

note "the conformance suite of address spaces"
suite=(cargo test --locked --package nfs-swap --all-features --test conformance)
"${suite[@]}" --no-run
# The proof that it was this server which the suite spoke to.
pages_come_in 1 &
witness=$!
NFS_SWAP_URL=$URL "${suite[@]}" -- --nocapture
wait "$witness"

note "the same over UDP"
pages_come_in 1 &
witness=$!
NFS_SWAP_URL="$URL&proto=udp" "${suite[@]}" -- --nocapture
wait "$witness"
