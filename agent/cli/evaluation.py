"""What ``keyeloop eval`` was asked to do, and doing it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from keyeloop.agent import models
from keyeloop.agent.agent import Agent
from keyeloop.agent.batch.result_file import Record
from keyeloop.agent.batch.view import BatchView
from keyeloop.agent.cli.batch import agent_chooser
from keyeloop.agent.evaluation.evaluate import REPORT, Evaluation, evaluate
from keyeloop.agent.evaluation.judged import judge_agent
from keyeloop.agent.evaluation.question import Question
from keyeloop.agent.evaluation.tables import print_evaluation
from keyeloop.agent.task import Task
from keyeloop.agent.user_tools import load_tools
from keyeloop.agent.wording import clipped
from keyeloop.model_backend.base import ModelBackend
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.config import Config
from keyeloop.runtime.errors import ConfigError, InputError
from keyeloop.runtime.prices import Prices
from keyeloop.tools.base import Tool


@dataclass(frozen=True)
class Wish:
    """An evaluation as the command line describes it; :meth:`grant` makes it."""

    questions: Sequence[Question]
    out: Path
    config: Config
    judge: str
    """Empty: nobody judges."""
    judge_prices: str | None
    tools: Sequence[str]
    """Of one's own, as FILE.py:function."""
    no_tools: bool
    epochs: int
    concurrency: int
    retry_failed: bool

    def grant(self, console: Console) -> Evaluation:
        """Ask, score, report, and show all of it on ``console``."""
        if self.no_tools and self.tools:
            raise InputError("--no-tools and --tool contradict each other: choose one")
        for named in filter(None, (self.config.model, self.judge)):
            models.check_model(named)
        prices, own = self._prices_of_judge(), load_tools(self.tools)
        if self.epochs > 1 and self.config.temperature == 0:
            console.print("at a temperature of 0 epochs are likely to be alike: --temperature 0.7 lets them differ")
        shown = _Shown(console, self.out)
        try:
            made = asyncio.run(self._play(own, prices, shown))
        except KeyboardInterrupt:
            shown.close()
            print(f"interrupted; what was answered is kept in {self.out}: the same command goes on", file=sys.stderr)
            raise
        finally:
            shown.close()
        print_evaluation(console, made)
        console.print(f"report: {self.out / REPORT}", soft_wrap=True, markup=False, highlight=False)
        return made

    async def _play(self, own: Sequence[Tool], prices: Prices | None, shown: _Shown) -> Evaluation:
        workers = ThreadPoolExecutor(max(8, 2 * self.concurrency), "eval")  # tools of many runs block threads at once
        asyncio.get_running_loop().set_default_executor(workers)
        config = self.config
        backends = {config.model: await asyncio.to_thread(models.load_model, models.configured_model(config))}
        try:
            if self.judge and self.judge not in backends:
                backends[self.judge] = await asyncio.to_thread(models.load_model, self.judge)
            return await evaluate(
                self._chooser(backends[config.model], own),
                [
                    replace(each, task=replace(each.task, documents=each.task.documents or config.documents))
                    for each in self.questions
                ],
                out=self.out,
                epochs=self.epochs,
                concurrency=self.concurrency,
                watch="whole" if self.no_tools else None,
                judge=judge_agent(backends[self.judge], self.out / "judged", prices) if self.judge else None,
                judge_name=self.judge,
                setting=self._setting(),
                retry_failed=self.retry_failed,
                watcher=shown,
            )
        finally:
            for backend in backends.values():
                await backend.close()

    def _chooser(self, backend: ModelBackend, own: Sequence[Tool]) -> Callable[[Task], Agent]:
        """An agent for each task; with a seed, every epoch draws from another."""
        config = self.config.model_copy(update={"runs": self.out / "runs"})
        seeds = [None if config.seed is None else config.seed + epoch for epoch in range(self.epochs)]
        settings = [config.model_copy(update={"seed": seed}) for seed in seeds]
        every = [agent_chooser(backend, each, None if self.no_tools else own) for each in settings]
        return lambda task: every[int(task.id.rpartition("#")[2]) - 1](task)

    def _setting(self) -> dict[str, Any]:
        """Who is asked and how: answers of another setting are not mixed with these."""
        config = self.config
        return {
            "model": config.model,
            "looks": "whole video, no tools" if self.no_tools else "with tools",
            "tools": list(self.tools),
            "temperature": config.temperature,
            **{
                name: value for name, value in (("top_p", config.top_p), ("top_k", config.top_k)) if value not in (0, 1)
            },
            "seed": config.seed,
            "max_tokens": config.max_tokens,
            **({"limits": asdict(config.limits)} if config.limits != Limits() else {}),
        }

    def _prices_of_judge(self) -> Prices | None:
        """The judge's own prices; those of the settings where it is the same model."""
        if self.judge_prices is None:
            return self.config.prices if self.judge == self.config.model else None
        try:
            price_in, price_out = (float(each) for each in self.judge_prices.split(","))
        except ValueError:
            raise ConfigError(
                f"--judge-prices {self.judge_prices!r}: write the prices in and out of a million tokens, as 0.3,1.2"
            ) from None
        return Prices(price_in, price_out)


class _Shown:
    """Shows an evaluation as it happens, answers first, then verdicts."""

    def __init__(self, console: Console, out: Path) -> None:
        self._console, self._out = console, out
        self._view: BatchView | None = None

    def begin(self, what: str, total: int, done: int) -> None:
        """Show a new part."""
        self.close()
        if done:
            self._console.print(f"{done} of {total} {what} are in {self._out} already", soft_wrap=True, highlight=False)
        self._view = BatchView(self._console, total, done)
        self._view.__enter__()

    def on(self, record: Record) -> None:
        """Show one answer under its question, or one verdict."""
        question = str(record["asked"]["task"]).splitlines()[0]
        if self._view is not None:
            self._view.on(record if "verdict" in record else {**record, "id": clipped(question, 60)})

    def close(self) -> None:
        """End the bar; idempotent."""
        view, self._view = self._view, None
        if view is not None:
            view.__exit__(None, None, None)
