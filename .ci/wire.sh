#!/usr/bin/env bash
# What goes over the wire to nfs-ganesha, as another decoder sees it: tshark finds no malformed packet, no
# call without its reply, nothing sent twice; and 100,000 pages go each way, every byte looked at.
# Then the same check must find a damaged capture, and a doubled one.
set -euo pipefail
. "$CI_DIR/lib.sh"
cd "$ROOT"
apt_install nfs-ganesha nfs-ganesha-vfs tshark

export GANESHA_DIR=$GATE_TMP/ganesha-wire GANESHA_PORT=20690
PORT=$GANESHA_PORT MOUNT_PORT=$((GANESHA_PORT + 1))
CAPTURE=$GATE_TMP/wire.pcapng
URL=$(bash "$CI_DIR/ganesha.sh" url swap)
SUITE=(cargo test --locked --package nfs-swap --all-features --test endurance)

finish() { bash "$CI_DIR/ganesha.sh" clean; }
trap finish EXIT

# decode CAPTURE [OPTION...]: without what tshark says about being root.
decode() {
	local capture=$1
	shift
	tshark -r "$capture" -d "tcp.port==$PORT,rpc" -d "udp.port==$PORT,rpc" \
		-d "tcp.port==$MOUNT_PORT,rpc" -d "udp.port==$MOUNT_PORT,rpc" "$@" 2> "$GATE_TMP/tshark.log" || {
		cat "$GATE_TMP/tshark.log" >&2
		return 1
	}
}

# judge CAPTURE: says what is wrong with it. Retransmissions of TCP are the kernel's, which probes when a
# server takes some milliseconds to acknowledge; a few are let pass, a second call or reply is not.
judge() {
	decode "$1" -T fields -E occurrence=a -e rpc.msgtyp -e rpc.xid -e _ws.malformed \
		-e _ws.expert.severity -e rpc.call.dup -e rpc.reply.dup -e tcp.analysis.retransmission \
		> "$GATE_TMP/fields"
	python3 - "$GATE_TMP/fields" <<'P'
import sys

ERROR = 8388608  # the worst severity that tshark has
rpc, wrong, frames, again = {"0": [], "1": []}, [], 0, 0
for line in open(sys.argv[1]):
    kinds, xids, malformed, severities, *repeated, retransmitted = line.rstrip("\n").split("\t")
    frames += 1
    for kind, xid in zip(filter(None, kinds.split(",")), xids.split(",")):
        rpc[kind].append(xid)
    if malformed:
        wrong.append(f"frame {frames} is malformed")
    if any(int(severity) >= ERROR for severity in filter(None, severities.split(","))):
        wrong.append(f"frame {frames} has an error")
    if any(repeated):
        wrong.append(f"frame {frames} has a call or a reply for the second time")
    again += bool(retransmitted)
calls, replies = rpc["0"], rpc["1"]
print(f"{frames} frames, {len(calls)} calls, {len(replies)} replies, {again} TCP segments sent again")
if sorted(calls) != sorted(replies):
    wrong.append("the replies are not those to the calls")
if len(calls) < 1000:
    wrong.append("too few calls for a check")
if again * 1000 > frames:
    wrong.append(f"{again} segments were sent again")
for line in wrong[:5]:
    print("WRONG:", line)
sys.exit(bool(wrong))
P
}

# seen FILE TEXT: waits until the text is in the file.
seen() {
	# `grep` ends the pipe when it has found it; that kills `tail`.
	timeout 20 tail -c +1 -s 0.05 -f "$1" 2>/dev/null | grep -a -q -m1 -- "$2" || true
	grep -a -q -- "$2" "$1" || die "$1 never says '$2'"
}

# captured COMMAND...: runs it, and leaves what went over the wire in $CAPTURE.
captured() {
	local sniffer status=0
	: > "$GATE_TMP/dumpcap.log"
	dumpcap -q -i lo -B 64 -f "port $PORT or port $MOUNT_PORT or udp port 9" -w "$CAPTURE" \
		2> "$GATE_TMP/dumpcap.log" &
	sniffer=$!
	seen "$GATE_TMP/dumpcap.log" '^File:'
	"$@" || status=$?
	# A last packet of our own: when it is there, all others are.
	python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b"all was seen", ("127.0.0.1", 9))'
	seen "$CAPTURE" 'all was seen'
	kill -INT "$sniffer"
	wait "$sniffer" || true
	grep -q 'dropped on interface.*/0 (pcap:0/dumpcap:0' "$GATE_TMP/dumpcap.log" ||
		die "packets escaped: $(cat "$GATE_TMP/dumpcap.log")"
	return "$status"
}

bash "$CI_DIR/ganesha.sh" start
"${SUITE[@]}" --no-run

note "100,000 pages each way"
NFS_SWAP_URL=$URL NFS_SWAP_PAGES=100000 "${SUITE[@]}" -- --nocapture

note "the wire, as tshark reads it"
NFS_SWAP_URL=$URL NFS_SWAP_PAGES=10000 captured "${SUITE[@]}" -- --nocapture
judge "$CAPTURE"

note "a capture with damage, and one with everything twice, are found"
editcap -E 0.0005 --seed 1 "$CAPTURE" "$GATE_TMP/damaged.pcapng"
expect 1 judge "$GATE_TMP/damaged.pcapng"
mergecap -w "$GATE_TMP/twice.pcapng" "$CAPTURE" "$CAPTURE"
expect 1 judge "$GATE_TMP/twice.pcapng"
