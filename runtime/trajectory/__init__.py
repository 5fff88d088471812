"""Recorded runs, read: one run whole, its steps and where it looked, and a folder of runs as a list."""

from keyeloop.runtime.trajectory.listing import RunSummary, summarise
from keyeloop.runtime.trajectory.looks import Look, Span
from keyeloop.runtime.trajectory.remembering import list_runs
from keyeloop.runtime.trajectory.run import Trajectory
from keyeloop.runtime.trajectory.steps import CallStep, Exchange, Status, Step

__all__ = [
    "CallStep",
    "Exchange",
    "Look",
    "RunSummary",
    "Span",
    "Status",
    "Step",
    "Trajectory",
    "list_runs",
    "summarise",
]
