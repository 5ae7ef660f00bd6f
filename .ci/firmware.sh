#!/usr/bin/env bash
# Builds the firmware for a Cortex-M4F with 64 KiB of memory, boots it in QEMU, and says how large it is.
# Each program checks by itself that it did what it should, and ends the emulator with its status.
#   BARE_METAL=rustup|debian   as for bare-metal.sh
set -euo pipefail
. "$CI_DIR/lib.sh"

TARGET=thumbv7em-none-eabihf
MEMORY=$((64 << 10))
PROGRAMS=(runtime without_smoltcp with_smoltcp)
QEMU=(qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none
	-semihosting-config enable=on,target=native -kernel)

# near_readme PROGRAM TEXT MEMORY: the README's row says the same, within a tenth (and 256 bytes).
near_readme() {
	local said row
	row=$(grep -F "| \`$1\`:" "$ROOT/README.md" | tr -d ', ') || die "the README does not know $1"
	IFS='|' read -ra said <<< "$row"
	near "$2" "${said[2]}" && near "$3" "${said[6]}" ||
		die "the README says ${said[2]} bytes of text and ${said[6]} of memory for $1; it is $2 and $3"
}

near() {
	local off=$(($1 > $2 ? $1 - $2 : $2 - $1))
	[ "$off" -le $(($2 / 10 + 256)) ]
}

apt_install qemu-system-arm binutils
arm_cargo "$TARGET" firmware

# Its configuration is found from there.
cd examples/firmware-size
note "$("${CARGO[@]}" --version)"
"${CARGO[@]}" build --locked --quiet --release --bins

table=$GATE_TMP/firmware-sizes
printf '%-16s %8s %6s %6s %6s %7s\n' program text data bss stack memory > "$table"
for program in "${PROGRAMS[@]}"; do
	binary=$CARGO_TARGET_DIR/$TARGET/release/$program
	note "$program"
	status=0
	timeout 60 "${QEMU[@]}" "$binary" > "$GATE_TMP/firmware" < /dev/null || status=$?
	cat "$GATE_TMP/firmware"
	[ "$status" -eq 0 ] || die "$program ended with status $status"
	stack=$(sed -n 's/^stack: \([0-9]*\) bytes at most$/\1/p' "$GATE_TMP/firmware")
	[ -n "$stack" ] || die "$program does not say how much stack it took"
	case $program in
	*smoltcp)
		grep -q '^charges left: 0,' "$GATE_TMP/firmware" || die "$program: charges are left"
		grep -qE 'VMIO [1-9][0-9]*, foreign dropped [1-9]' "$GATE_TMP/firmware" ||
			die "$program: nothing got through, or nothing was dropped"
		;;
	esac
	read -r text data bss _ < <(size "$binary" | tail -n 1)
	used=$((data + bss + stack))
	printf '%-16s %8d %6d %6d %6d %7d\n' "$program" "$text" "$data" "$bss" "$stack" "$used" >> "$table"
	[ "$used" -le "$MEMORY" ] || die "$program takes $used bytes of memory, of $MEMORY"
done
note "sizes in bytes; memory is data, bss and stack, of $MEMORY"
cat "$table"
while read -r program text _ _ _ used; do near_readme "$program" "$text" "$used"; done < <(tail -n +2 "$table")
