#!/usr/bin/env python3
"""The table of invariants in docs/ARCHITECTURE.md against the tree.

Each row names tests and switches. Every test must exist (a name that ends in "…" is the beginning of one), and
one at least begins with its invariant; every switch must be in the code, and every switch of the code in the
row of its invariant.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = "docs/ARCHITECTURE.md"
INVARIANTS = [f"M{n}" for n in range(1, 8)] + [f"N{n}" for n in range(1, 9)] + [f"S{n}" for n in range(1, 9)]
ROW = re.compile(r"^\| ([MNS]\d) \|(.*)\|\s*$", re.MULTILINE)
NAME = re.compile(r"`([^`]+)`")
FUNCTION = re.compile(r"\bfn (\w+)")
# In a crate's table of mechanisms.
SWITCH = re.compile(r'= "([a-z-]+)", "([MNS]\d)"')


def sources():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.rs"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    return {path: (ROOT / path).read_text() for path in listed.stdout.split() if (ROOT / path).exists()}


def rows(text):
    for match in ROW.finditer(text):
        cells = match[2].split(" | ")
        if len(cells) != 3:
            yield match[1], None, None
            continue
        yield match[1], NAME.findall(cells[1]), NAME.findall(cells[2])


def faults():
    code = sources()
    functions = {name for text in code.values() for name in FUNCTION.findall(text)}
    crates = {path: text for path, text in code.items() if path.endswith("src/ablation.rs")}
    switches = {name: (invariant, path) for path, text in crates.items() for name, invariant in SWITCH.findall(text)}
    named = {}
    seen = []
    for invariant, tests, ablations in rows((ROOT / TABLE).read_text()):
        seen.append(invariant)
        if tests is None:
            yield f"{invariant}: not four columns"
            continue
        own = 0
        for test in tests:
            prefix = test.removesuffix("…")
            found = {name for name in functions if name.startswith(prefix)} if prefix != test else {test} & functions
            if not found:
                yield f"{invariant}: no test {test}"
            own += bool(found) and prefix.startswith(invariant.lower() + "_")
        if own == 0 and invariant[0] in "MN":
            yield f"{invariant}: no test whose name begins with {invariant.lower()}_"
        for switch in ablations:
            named.setdefault(switch, set()).add(invariant)
            if switch not in switches:
                yield f"{invariant}: no switch {switch}"
        if not ablations and invariant[0] in "MN":
            yield f"{invariant}: no switch"
    if seen != INVARIANTS:
        yield f"rows of {', '.join(seen)}; expected {', '.join(INVARIANTS)}"
    for switch, (invariant, path) in sorted(switches.items()):
        if invariant not in named.get(switch, set()):
            where = ", ".join(sorted(named.get(switch, set()))) or "none"
            yield f"{switch} ({path}) keeps {invariant}, and stands in {where}"


def main():
    found = list(faults())
    for fault in found:
        print(f"{TABLE}: {fault}", file=sys.stderr)
    if not found:
        print(f"{TABLE}: tests and switches of {len(INVARIANTS)} invariants are there")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
