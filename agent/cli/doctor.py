"""``keyeloop doctor``: what works here, and what to install."""

from __future__ import annotations


def doctor() -> int:
    """Try what keyeloop stands on; exit 1 when something necessary is missing."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from keyeloop.agent.checks import run_checks

    styles = {"ok": "green", "missing": "bold red", "off": "yellow"}
    table = Table("what", "state", "found", "what to do", show_lines=False)
    healthy = True
    for check in run_checks():
        table.add_row(check.name, Text(check.state, styles[check.state]), Text(check.found), Text(check.cure))
        healthy = healthy and check.state != "missing"
    Console().print(table)
    print("ready" if healthy else "not ready: see the rows that are missing")
    return 0 if healthy else 1
