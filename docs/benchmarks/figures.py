#!/usr/bin/env python3
"""Figures of the benchmarks: from what they print to tables. Needs nothing but Python.

    figures.py counts < GUNGRAUN_JSON > instructions.csv
"""

import csv
import json
import sys

# Allocations of one run of a benchmark: OPERATIONS in mempool/benches/support/patterns.rs.
OPERATIONS = 1024


def counts(lines):
    """Rows (group, subject, case, instructions for one operation), less those of the loop around it."""
    found = {}
    for line in lines:
        run = json.loads(line)
        (profile,) = run["profiles"]
        total = profile["data"]["total"]["metrics"]["Ir"]["values"]["new"]
        found[run["group"], run["function_name"], run["id"]] = total / OPERATIONS
    rows = []
    for (group, subject, case), instructions in found.items():
        if subject == "nothing":
            continue
        loop = found.get((group, "nothing", case), found.get((group, "nothing", "loop_alone"), 0.0))
        rows.append((group, subject, case, f"{instructions - loop:.1f}"))
    return rows


def main(arguments):
    if arguments == ["counts"]:
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(("group", "subject", "case", "instructions"))
        out.writerows(counts(sys.stdin))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
