#!/usr/bin/env python3
"""Judges one JSON report of the demonstration, read from standard input.

usage: demo_report.py verified [--emergency]
       demo_report.py deadlock WORD...

`verified`: pages were swapped out and in, every page was right, no packet of the swap traffic was
dropped, every charge came back and no component held more than its budget; with `--emergency`
also: packets in reserve memory were dropped, so the reserve was needed. `deadlock`: no progress,
and the report names the holder of the memory, with these words, and who waits for whom.
"""

import json
import sys

FIELDS = {
    "": ["verdict", "deadlock", "pages_verified", "mismatches", "faults", "pages_in", "pages_out",
         "fault_us", "drops", "frames", "emergency", "budget", "charges_left", "seconds"],
    "fault_us": ["p50", "p99", "p999"],
    "frames": ["total", "reserve", "min_free"],
    "emergency": ["vmio_dropped"],
}


def missing(report):
    for where, names in FIELDS.items():
        part = report.get(where, {}) if where else report
        for name in names:
            if name not in part:
                yield f"the field {where + '.' if where else ''}{name} is missing"


def verified(report, flags):
    if report["verdict"] != "verified":
        yield f"the verdict is {report['verdict']}"
    for name in ["pages_verified", "pages_in", "pages_out", "faults"]:
        if report[name] <= 0:
            yield f"{name} is {report[name]}"
    for name in ["mismatches", "charges_left"]:
        if report[name] != 0:
            yield f"{name} is {report[name]}, not 0"
    if report["emergency"]["vmio_dropped"] != 0:
        yield f"{report['emergency']['vmio_dropped']} packets of the swap traffic were dropped"
    us = report["fault_us"]
    if not 0 < us["p50"] <= us["p99"] <= us["p999"]:
        yield f"fault_us is not in order: {us}"
    if not report["budget"]:
        yield "the budget is empty"
    for component, frames in report["budget"].items():
        if frames["peak"] > frames["computed"]:
            yield f"{component} held {frames['peak']} frames, its budget is {frames['computed']}"
    emergency = (n for reason, n in report["drops"].items() if reason.startswith("emergency"))
    if "--emergency" in flags and sum(emergency) == 0:
        yield "no packet in reserve memory was dropped: the flood did not press"


def deadlock(report, words):
    if report["verdict"] != "no-progress":
        yield f"the verdict is {report['verdict']}, expected no-progress"
    # Only what the report concludes: the name of the missing mechanism stands elsewhere in it.
    holder = (report["deadlock"] or {}).get("holder", "")
    for word in words:
        if word.lower() not in holder.lower():
            yield f"the holder is {holder!r}, which does not say {word!r}"
    if not (report["deadlock"] or {}).get("chain"):
        yield "the report does not say who waits for whom"


def main():
    judges = {"verified": verified, "deadlock": deadlock}
    if len(sys.argv) < 2 or sys.argv[1] not in judges:
        sys.exit(__doc__)
    text = sys.stdin.read()
    try:
        report = json.loads(text)
    except ValueError as error:
        sys.exit(f"not one JSON object: {error}\n{text}")
    found = list(missing(report)) or list(judges[sys.argv[1]](report, sys.argv[2:]))
    print("{verdict}: {pages_verified} pages verified, {pages_out} out, {pages_in} in, {faults} "
          "faults in {seconds} s".format_map({**dict.fromkeys(FIELDS[""]), **report}))
    if report.get("deadlock"):
        print("holder:", report["deadlock"].get("holder"))
    if found:
        sys.exit("\n".join(found) + "\n" + text)


main()
