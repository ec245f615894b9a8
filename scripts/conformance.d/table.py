#!/usr/bin/env python3
"""Writes results of conformance runs into a page: table.py PAGE VERSION RESULTS.json...

Lists that were not run keep their rows. Only what is between the two marks of the page is touched.
"""
import collections
import datetime
import json
import pathlib
import re
import sys

BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
HEAD = ["| list | part | passed | failed | skipped | when, by |", "|---|---|---:|---:|---:|---|"]


def part(test):
    """What a test is about: the service, or scenario."""
    words = test.split(".")
    return words[2] if words[1] == "api" else words[1]


def rows(path, stamp):
    counts = collections.defaultdict(collections.Counter)
    for test, outcome in json.loads(path.read_text()).items():
        for name in (part(test), "all"):
            counts[name][outcome["verdict"]] += 1
    names = sorted(name for name in counts if name != "all") + ["all"]
    return [
        f"| {path.stem} | {name} | {counts[name]['passed']} | {counts[name]['failed']} | {counts[name]['skipped']} | {stamp} |"
        for name in names
    ]


def failures(path):
    results = sorted(json.loads(path.read_text()).items())
    return [f"- {path.stem}: `{test}` {outcome['verdict']}" for test, outcome in results if outcome["verdict"] != "passed"]


def main():
    page, version, files = pathlib.Path(sys.argv[1]), sys.argv[2], [pathlib.Path(name) for name in sys.argv[3:]]
    stamp = f"{datetime.date.today()}, {version}"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    ran = {path.stem for path in files}
    kept = [line for line in old.splitlines() if re.match(r"\| (?!list )", line) and line.split("|")[1].strip() not in ran]
    listed = [line for line in old.splitlines() if line.startswith("- ") and line[2:].split(":")[0] not in ran]
    new = [row for path in files for row in rows(path, stamp)]
    lines = HEAD + sorted(kept + new, key=lambda line: line.split("|")[1])
    misses = sorted(listed + [line for path in files for line in failures(path)])
    if misses:
        lines += ["", "Not passed:", ""] + misses
    page.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    main()
