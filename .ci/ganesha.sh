#!/usr/bin/env bash
# A real NFS server, nfs-ganesha, on loopback: NFSv3 over TCP and UDP, a tmpfs as its export.
#   ganesha.sh start | stop | kill9 | pause | resume | access RW|RO | clean | dir | url FILE | log
# `dir` prints where the exported files are, `url` the address of one of them; `clean` stops the
# server and forgets its files. SIGKILL is safe: handles survive while the tmpfs stays.
# Needs root and the packages nfs-ganesha, nfs-ganesha-vfs.
# `access` changes what clients of the running server may do.
#   GANESHA_DIR=DIR   where its state goes (default: ganesha-PORT under $TMPDIR)
#   GANESHA_PORT=N    NFS here, MOUNT on the next one (default 20490)
#   GANESHA_SIZE=SIZE of the tmpfs (default 1g)
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PORT=${GANESHA_PORT:-20490}
MOUNT_PORT=$((PORT + 1))
D=${GANESHA_DIR:-${TMPDIR:-/tmp}/ganesha-$PORT}
EXPORT=$D/export

die() {
	echo "error: $*" >&2
	exit 1
}

pid() { cat "$D/pid" 2>/dev/null || true; }

alive() {
	local p
	p=$(pid)
	# A zombie is gone: field 3 of stat, after the name in brackets.
	[ -n "$p" ] && [ -r "/proc/$p/stat" ] &&
		[ "$(sed 's/.*) //' "/proc/$p/stat" 2>/dev/null | cut -c1)" != Z ]
}

# wait_gone PID SECONDS: a pidfd becomes readable when the process ends.
wait_gone() {
	python3 - "$1" "$2" <<'P'
import os, select, sys
try:
    fd = os.pidfd_open(int(sys.argv[1]))
except ProcessLookupError:
    sys.exit(0)
sys.exit(0 if select.select([fd], [], [], float(sys.argv[2]))[0] else 1)
P
}

# The MEM back end would need no tmpfs, but drops data beyond 2 MiB of each file, silently.
write_conf() {
	cat > "$D/ganesha.conf" <<C
NFS_CORE_PARAM {
	NFS_Port = $PORT;
	MNT_Port = $MOUNT_PORT;
	Bind_addr = 127.0.0.1;
	Protocols = 3;
	Enable_NLM = false;
	Enable_RQUOTA = false;
	Enable_UDP = true;
	mount_path_pseudo = true;
	Enable_NFS_Stats = false;
}
NFS_KRB5 { Active_krb5 = false; }
NFSv4 {
	Graceless = true;
	RecoveryBackend = fs;
	RecoveryRoot = $D/recovery;
}
EXPORT {
	Export_Id = 77;
	Path = $EXPORT;
	Pseudo = /export;
	Filesystem_Id = 77.77;
	Protocols = 3;
	Transports = TCP, UDP;
	Access_Type = ${1:-RW};
	Squash = No_Root_Squash;
	SecType = sys;
	Disable_ACL = true;
	FSAL { Name = VFS; }
}
LOG { Default_Log_Level = EVENT; }
C
}

start() {
	! alive || die "already running, pid $(pid)"
	mkdir -p "$D/recovery" "$EXPORT"
	mountpoint -q "$EXPORT" ||
		mount -t tmpfs -o "size=${GANESHA_SIZE:-1g},mode=777" "ganesha-$PORT" "$EXPORT"
	write_conf
	# NFSv3 refuses to start without a portmapper; the stub answers for one.
	[ -e "$D/stub.so" ] ||
		"${CC:-cc}" -O2 -shared -fPIC -o "$D/stub.so" "$HERE/rpcbind_stub.c"
	: > "$D/ganesha.log"
	LD_PRELOAD="$D/stub.so" ganesha.nfsd -F -C -f "$D/ganesha.conf" -L "$D/ganesha.log" \
		-p "$D/ganesha.pid" > "$D/stdout" 2>&1 < /dev/null &
	local p=$!
	echo "$p" > "$D/pid"
	disown
	# Ends with the line, with the server, or with the time. (`tail` may die of SIGPIPE.)
	if ! grep -q -m1 'NFS SERVER INITIALIZED' \
		< <(exec timeout 15 tail -n +1 -s 0.05 -f --pid="$p" "$D/ganesha.log" 2>/dev/null); then
		tail -n 20 "$D/ganesha.log" "$D/stdout" >&2
		die "nfs-ganesha is not ready, see $D/ganesha.log"
	fi
	echo "nfs-ganesha is ready: pid $p, 127.0.0.1:$PORT"
}

stop() {
	local p
	p=$(pid)
	if alive; then
		kill -TERM "$p"
		wait_gone "$p" 15 || {
			echo "no clean exit after 15 s: SIGKILL" >&2
			kill -KILL "$p"
			wait_gone "$p" 5
		}
	fi
	rm -f "$D/pid"
}

kill9() {
	local p
	p=$(pid)
	alive || die "not running"
	kill -KILL "$p"
	wait_gone "$p" 5
	rm -f "$D/pid"
	echo "nfs-ganesha is killed"
}

signal() {
	alive || die "not running"
	kill "-$1" "$(pid)"
}

# Returns when every thread stands still, which takes each a moment.
pause() {
	signal STOP
	while sed 's/.*) //' /proc/"$(pid)"/task/*/stat | cut -c1 | grep -qv T; do sleep 0.01; done
}
resume() { signal CONT; }

# It reads its exports again some time after the signal.
access() {
	write_conf "$1"
	signal HUP
}

clean() {
	stop
	! mountpoint -q "$EXPORT" || umount "$EXPORT"
	rm -rf "$D"
}

url() { echo "nfs://127.0.0.1:$PORT/export/${1:-}?mountport=$MOUNT_PORT"; }

case "${1:-}" in
start | stop | kill9 | pause | resume | clean) "$1" ;;
access) access "${2:?RW or RO}" ;;
url) url "${2:-}" ;;
dir) echo "$EXPORT" ;;
log) cat "$D/ganesha.log" ;;
*)
	sed -n '2,10p' "$0"
	exit 2
	;;
esac
