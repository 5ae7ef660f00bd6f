#!/usr/bin/env bash
# The tests of the allocator that run on a Cortex-M0, which has no compare-and-swap, in QEMU. The program
# ends the emulator with its status, and says which tests it ran.
#   BARE_METAL=rustup|debian   as for bare-metal.sh
set -euo pipefail
. "$CI_DIR/lib.sh"

TARGET=thumbv6m-none-eabi
QEMU=(qemu-system-arm -M microbit -nographic -monitor none -serial none
	-semihosting-config enable=on,target=native -kernel)
TESTS=(buddy bitmap zone entitlement 'reserve tree' slab pool 'size classes' heap interrupt)

apt_install qemu-system-arm
arm_cargo "$TARGET" thumbv6m

# Its configuration is found from there.
cd examples/thumbv6m-tests
note "$("${CARGO[@]}" --version)"
"${CARGO[@]}" build --locked --quiet --release

said=$GATE_TMP/thumbv6m
status=0
timeout 120 "${QEMU[@]}" "$CARGO_TARGET_DIR/$TARGET/release/thumbv6m-tests" > "$said" < /dev/null || status=$?
cat "$said"
[ "$status" -eq 0 ] || die "the tests ended with status $status"
diff <(printf 'test %s\n' "${TESTS[@]}") <(grep '^test ' "$said") || die "other tests ran than these"
grep -qxE "${#TESTS[@]} tests of [1-9][0-9]* rounds and [1-9][0-9]* interrupts in frames of 512 bytes: all well" "$said" ||
	die "it does not say that all is well"
