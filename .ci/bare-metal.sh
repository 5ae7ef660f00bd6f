#!/usr/bin/env bash
# Builds the crates given for targets without an operating system, first with no feature at all,
# then with the adapters of stacks. rustup's prebuilt core where rustup can fetch it; elsewhere
# Debian's toolchain, which builds core and alloc from source.
#   BARE_METAL=rustup|debian   insists on one of them
set -euo pipefail
. "$CI_DIR/lib.sh"

TARGETS=(
	thumbv6m-none-eabi # no compare-and-swap
	thumbv7em-none-eabihf
	riscv32imac-unknown-none-elf
	aarch64-unknown-none
	x86_64-unknown-none
)
BUILD=(build --locked --quiet --no-default-features "${@/#/--package=}")

add_targets() { timeout 120 rustup target add "${TARGETS[@]}"; }

# Another compiler's artefacts need a directory of their own.
with_rustup() {
	CARGO=(cargo)
	export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/bare-metal"
}

with_debian() {
	apt_install rustc-web cargo-web rust-web-src libstd-rust-web-dev
	# RUSTC_BOOTSTRAP: -Zbuild-std is the one unstable option that is used.
	CARGO=(env RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "-Zbuild-std=core,alloc")
	export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/bare-metal-debian"
}

case "${BARE_METAL:-}" in
rustup)
	add_targets
	with_rustup
	;;
debian) with_debian ;;
'')
	if add_targets; then
		with_rustup
	else
		note "rustup cannot fetch the targets here: Debian's toolchain instead"
		with_debian
	fi
	;;
*) die "BARE_METAL=$BARE_METAL is neither rustup nor debian" ;;
esac

note "$("${CARGO[@]}" --version)"
for target in "${TARGETS[@]}"; do
	started=$SECONDS
	"${CARGO[@]}" "${BUILD[@]}" --target "$target"
	"${CARGO[@]}" "${BUILD[@]}" --target "$target" --features netreserve/smoltcp,netreserve/embassy,nfs-swap/smoltcp
	echo "$target: without features and with smoltcp, $((SECONDS - started)) s"
done
