"""Runs every benchmark of this folder, one after the other, and writes all rows to one file."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import print_rows, write_rows

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    args = parser.parse_args()
    rows, failed = [], []
    for script in sorted(HERE.glob("*.py")):
        if script.name in ("common.py", "run_all.py"):
            continue
        print(f"== {script.stem}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "rows.json"
            if subprocess.run([sys.executable, script, "--json", result]).returncode == 0:
                rows += json.loads(result.read_text(encoding="utf-8"))
            else:
                failed.append(script.name)
    write_rows(args.json, rows)
    missed = [row for row in rows if row["met"] is False]
    if missed:
        print("Targets missed:")
        print_rows(missed)
    print(f"{len(rows)} figures in {args.json}, {len(missed)} of them short of their target")
    if failed:
        print(f"Failed to run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
