"""Lets SGLang find keyeloop's plugin where nothing can be installed: writes a package's metadata, and only that.

    python benchmarks/serving/plugin_site.py FOLDER

then put FOLDER before ``src`` on PYTHONPATH. Version and entry points are read from ``pyproject.toml``.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main() -> int:
    """Write ``FOLDER/keyeloop-VERSION.dist-info``."""
    folder = Path(sys.argv[1])
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    info = folder / f"keyeloop-{project['version']}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: keyeloop\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [
        line for name, group in groups.items() for line in (f"[{name}]", *(f"{k} = {v}" for k, v in group.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(info)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
