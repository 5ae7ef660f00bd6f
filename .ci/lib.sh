# shellcheck shell=bash
# Sourced by the gate's scripts: reporting, packages and tools.

die() {
	echo "error: $*" >&2
	exit 1
}

note() { printf '\n--- %s\n' "$*"; }

# Something that this machine cannot check, by its nature. Repeated below the summary.
not_checked() {
	printf '\n!!! NOT CHECKED: %s\n\n' "$*"
	[ -z "${GATE_NOTES:-}" ] || printf '%s\n' "$*" >> "$GATE_NOTES"
}

# apt_install PACKAGE...: those which are missing; the package lists are fetched once a run.
apt_install() {
	local package missing=()
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] ||
			missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	note "apt-get install ${missing[*]}"
	if [ ! -e "$GATE_TMP/apt-updated" ]; then
		apt-get update -qq
		touch "$GATE_TMP/apt-updated"
	fi
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		"${missing[@]}" > "$GATE_TMP/apt.log" 2>&1 || {
		cat "$GATE_TMP/apt.log" >&2
		die "apt-get install ${missing[*]} failed"
	}
}

# cargo_tool NAME VERSION [INSTALL OPTION...]: `cargo NAME`, whichever version is installed
# already, else this one. Built beside the workspace, not in it.
cargo_tool() {
	local name=$1 version=$2
	shift 2
	if cargo "$name" --version > "$GATE_TMP/version" 2>/dev/null; then
		note "$(head -n 1 "$GATE_TMP/version") is installed"
		return 0
	fi
	note "cargo install cargo-$name $version"
	CARGO_TARGET_DIR="$GATE_TMP/tools" cargo install "cargo-$name" --version "$version" \
		--locked --quiet "$@"
}

# program NAME VERSION: the program of the crate NAME, of exactly this version.
program() {
	local name=$1 version=$2
	if [ "$("$name" --version 2>/dev/null || true)" = "$name $version" ]; then
		note "$name $version is installed"
		return 0
	fi
	note "cargo install $name $version"
	CARGO_TARGET_DIR="$GATE_TMP/tools" cargo install "$name" --version "$version" --locked --quiet --debug
}

# expect STATUS COMMAND...: the command ends with exactly this exit status.
expect() {
	local want=$1 got=0
	shift
	"$@" || got=$?
	[ "$got" -eq "$want" ] || die "exit status $got, expected $want: $*"
}

# refused WORD OPTION...: the demonstration ends with status 2 and one line, which has this word.
refused() {
	local word=$1 line
	shift
	expect 2 timeout 60 "$CARGO_TARGET_DIR/release/netswap" "$@" \
		> /dev/null 2> "$GATE_TMP/stderr"
	line=$(cat "$GATE_TMP/stderr")
	[ "$(wc -l <<< "$line")" -eq 1 ] || die "not one line of error for $*: $line"
	grep -qiF -- "$word" <<< "$line" || die "the error for $* does not say '$word': $line"
	echo "$line"
}

# The cargo for programs that are linked for an Arm core, in CARGO, and a target directory of its own named
# after NAME: rustup's prebuilt core where it can be fetched, Debian's toolchain elsewhere (BARE_METAL as in
# bare-metal.sh).
#   arm_cargo TARGET NAME
arm_cargo() {
	local target=$1 name=$2 lld
	if [ "${BARE_METAL:-}" != debian ] && timeout 120 rustup target add "$target"; then
		CARGO=(cargo)
		export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/$name"
	elif [ "${BARE_METAL:-}" = rustup ]; then
		die "rustup has no $target"
	else
		# Debian's toolchain has no linker for Arm: rustup's own.
		apt_install rustc-web cargo-web rust-web-src libstd-rust-web-dev
		lld="$(rustc --print sysroot)/lib/rustlib/$(rustc --version --verbose | sed -n 's/^host: //p')/bin/rust-lld"
		CARGO=(env RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "-Zbuild-std=core"
			--config "target.$target.linker='$lld'"
			--config "target.$target.rustflags=['-Clinker-flavor=ld.lld']")
		export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/$name-debian"
	fi
}
