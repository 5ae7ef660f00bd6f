#!/usr/bin/env python3
"""Figures of the benchmarks: from what they print to tables, bounds and plots.

    figures.py counts < GUNGRAUN_JSON > instructions.csv
    figures.py check BOUNDS.csv < instructions.csv
    figures.py table [COLUMN] < FIGURES.csv
    figures.py plot DIRECTORY           its CSV files, as SVG files beside them

Needs nothing but Python 3.
"""

import csv
import json
import sys
from pathlib import Path

import svg

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
        loop = found.get((group, "nothing", case)) or found[group, "nothing", "loop_alone"]
        rows.append((group, subject, case, f"{instructions - loop:.1f}"))
    return rows


def read(lines, column=None):
    """{(group, subject, case): figure}, of that column or the fourth."""
    header, *rows = csv.reader(lines)
    at = header.index(column) if column else 3
    return {tuple(row[:3]): float(row[at]) for row in rows}


def check(bounds, figures):
    """Compares figures with their bounds: a number, or the figure of a peer."""
    broken = 0
    for group, subject, case, bound in list(csv.reader(bounds))[1:]:
        # A figure that is not there is a broken bound, too.
        figure = figures.get((group, subject, case), float("inf"))
        peer = figures.get((group, bound, case))
        limit = float(bound) if peer is None else peer
        verdict = "ok" if figure <= limit else "EXCEEDED"
        broken += figure > limit
        source = "" if peer is None else f" ({bound})"
        print(f"{verdict:9} {group} {subject} {case}: {figure} instructions, at most {limit}{source}")
    return broken


def table(figures):
    """Markdown: a table for each group, a row for each subject."""
    groups = {}
    for (group, subject, case), figure in figures.items():
        groups.setdefault(group, {}).setdefault(subject, {})[case] = figure
    for group, subjects in groups.items():
        cases = list(dict.fromkeys(case for row in subjects.values() for case in row))
        print(f"\n| {group} | {' | '.join(cases)} |\n|---|{'---:|' * len(cases)}")
        for subject, row in subjects.items():
            digits = {c: 0 if f >= 100 else 1 if f >= 10 else 2 for c, f in row.items()}
            cells = (f"{row[case]:.{digits[case]}f}" if case in row else "" for case in cases)
            print(f"| {subject} | {' | '.join(cells)} |")


def plot(directory):
    """Writes every plot of which the figures are there."""
    def figures(name):
        with open(directory / f"{name}.csv", encoding="utf-8") as file:
            return read(file)

    def bars(name, figures, unit, panels):
        panels = [
            (title, {s: v for (g, s, c), v in figures.items() if (g, c) == (group, case) and s != "nothing"})
            for title, group, case in panels
        ]
        (directory / f"{name}.svg").write_text(svg.bars(unit, panels), encoding="utf-8")

    panels = [
        ("object of 64 bytes, random order", "typed", "random"),
        ("object of 64 bytes, pairs", "typed", "pair"),
        ("packet buffer of 2016 bytes, random order", "buffer", "random"),
        ("packet buffer of 2016 bytes, pairs", "buffer", "pair"),
        ("frame, random order", "frame", "random"),
        ("frame, pairs", "frame", "pair"),
        ("skb, first in first out", "skb", "fifo"),
    ]
    bars("instructions", figures("instructions"), "instructions, one allocation and release", panels)
    bars("walltime", figures("walltime"), "ns, one allocation and release (median)", panels)

    curves = figures("curves")
    for name, title, xlabel in (
        ("frame_by_mib", "A frame, by the size of the memory", "MiB of memory managed"),
        ("frame_by_fill", "A frame, by how full the memory is", "% of 256 MiB allocated"),
        ("typed_by_fill", "An object of 64 bytes, by how full the memory is", "% of 1 MiB allocated"),
        ("class_by_flows", "Classification, by the number of flows", "VMIO flows"),
    ):
        lines = {}
        for (group, subject, case), figure in curves.items():
            if group == name:
                lines.setdefault(subject, []).append((float(case.removeprefix("x")), figure))
        picture = svg.lines(title, xlabel, "instructions", lines, log_x="fill" not in name)
        (directory / f"{name}.svg").write_text(picture, encoding="utf-8")

    with open(directory / "emergency.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    panels = []
    for level, what in (("buffer", "packet buffers"), ("frame", "frames")):
        for scenario, when in (("churn", "memory is let go now and then"),
                               ("write-out", "memory is let go when one was served")):
            panels.append((f"urgent requests for {what} served at once; {when}", {
                row["subject"]: float(row["at_once_percent"])
                for row in rows if (row["level"], row["scenario"]) == (level, scenario)
            }))
    picture = svg.bars("% of urgent requests served at once", panels, most=100)
    (directory / "emergency.svg").write_text(picture, encoding="utf-8")


def main(arguments):
    match arguments:
        case ["counts"]:
            out = csv.writer(sys.stdout, lineterminator="\n")
            out.writerow(("group", "subject", "case", "instructions"))
            out.writerows(counts(sys.stdin))
        case ["check", bounds]:
            with open(bounds, encoding="utf-8") as file:
                sys.exit(1 if check(file, read(sys.stdin)) else 0)
        case ["table", *column]:
            table(read(sys.stdin, *column))
        case ["plot", directory]:
            plot(Path(directory))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
