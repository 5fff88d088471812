"""Puts the files of ``speed.py`` beside each other: ``python benchmarks/serving/speed_table.py OUT [--write FILE]``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from record import Row, show


def main() -> int:
    """Print one table for first tokens and decoding; with ``--write``, keep all of it in one file."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", type=Path, help="folder with speed-*.json")
    options.add_argument("--write", type=Path, help="file for the merged results")
    given = options.parse_args()
    found = {path.stem.removeprefix("speed-"): json.loads(path.read_text()) for path in given.out.glob("speed-*.json")}
    lengths = sorted({row["length"] for one in found.values() for row in one.get("rows", ())})
    table: list[Row] = []
    for length in lengths:
        line: Row = {"length": length}
        for name, one in sorted(found.items()):
            row = next((row for row in one.get("rows", ()) if row["length"] == length), None)
            mark = "" if row is None or row.get("counted", True) else "*"
            line[f"{name} first s"] = "-" if row is None else f"{row['first_s']:.3g}{mark}"
            line[f"{name} ms/token"] = "-" if row is None else f"{row['decode_ms']:.3g}{mark}"
        table.append(line)
    show("one request at a time; * is a first run, compilation included", table)
    batches = [{"server": name, **one["batch"]} for name, one in sorted(found.items()) if "batch" in one]
    if batches:
        show("decoding together", batches)
    if given.write:
        given.write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
