"""One optimiser step of keye-tiny over trajectories and readers, on one device or one rank of many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from training.keye_tiny.batch import Micro, Pass, Step, see
from training.keye_tiny.letters import LABELS
from training.keye_tiny.model import Extra, KeyeTiny, run_layer
from training.keye_tiny.recipe import Recipe
from training.keye_tiny.sample import Kind
from training.keye_tiny.supply import FRAME
from training.keye_tiny.vision import run_vision_layer

COLUMNS = (
    "rows", "loss", "tokens", "calls right", "answers right",
    "reading loss", "reading tokens", "rows that read", "readings right", "box loss", "box tokens",
)  # fmt: skip
LETTER_RARITY = 8.0
"""How much more a letter's presence counts than its absence."""


class Lagging:
    """A number from the device, one call late: by then it has arrived. The first call waits."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._slots = [torch.zeros(1, pin_memory=self._cuda) for _ in range(2)]
        self._events: list[torch.cuda.Event | None] = [None, None]
        self._calls = 0

    def next(self, value: Tensor) -> float:
        """Send ``value`` [1] on its way and return the one before."""
        here = self._calls % 2
        self._slots[here].copy_(value, non_blocking=True)
        if self._cuda:
            self._events[here] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._events[here].record()  # type: ignore[union-attr]
        wanted = here if self._calls == 0 else 1 - here
        self._calls += 1
        event = self._events[wanted]
        if event is not None:
            event.synchronize()
        return float(self._slots[wanted])


class Learner:
    """Model, optimiser and counters. Gradients live in one flat buffer, the indexer's at its end."""

    def __init__(
        self, model: KeyeTiny, recipe: Recipe, families: int, *, compiled: bool, bfloat16: bool | None = None
    ) -> None:
        """``bfloat16`` products by default on a GPU; parameters that need no gradient stay as they are."""
        self.model, self.recipe = model, recipe
        self.device = next(model.parameters()).device
        self.amp = self.device.type == "cuda" if bfloat16 is None else bfloat16
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.letters = nn.Linear(model.shape.hidden, LABELS).to(self.device)
        """Names the letters in a visual token; it only helps training and is not exported."""
        nn.init.normal_(self.letters.weight, std=0.02)
        nn.init.constant_(self.letters.bias, -4.0)
        everything = [*model.named_parameters(), *self.letters.named_parameters("letters")]
        learned = [(name, weight) for name, weight in everything if weight.requires_grad]
        named = sorted(learned, key=lambda item: "sa_indexer" in item[0])
        sizes = [weight.numel() for _, weight in named]
        self._flat = torch.zeros(sum(sizes) + 1, device=self.device)
        at = 0
        for (_, weight), size in zip(named, sizes, strict=True):
            weight.grad = self._flat[at : at + size].view_as(weight)
            at += size
        indexer = sum(size for (name, _), size in zip(named, sizes, strict=True) if "sa_indexer" in name)
        self._split = sum(sizes) - indexer
        matrices = [weight for _, weight in named if weight.dim() > 1]
        others = [weight for _, weight in named if weight.dim() <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.peak_rate,
            betas=recipe.betas,
            fused=self.device.type == "cuda",
        )
        self._agreed = Lagging(self.device)
        self.counts = torch.zeros(2, families, len(COLUMNS), dtype=torch.float64, device=self.device)
        self._rarity = torch.tensor(LETTER_RARITY, device=self.device)
        self.letter_sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        """Loss, steps, letters named, letters."""
        self.layer_sums = torch.zeros(5, dtype=torch.float64, device=self.device)
        if self.world > 1:
            for _, weight in named:
                dist.broadcast(weight.data, 0)
        if compiled:
            torch._dynamo.config.recompile_limit = 64
            model.layer_step = torch.compile(run_layer, dynamic=False)
            model.visual.step = torch.compile(run_vision_layer, dynamic=False)

    def forward(self, micro: Micro, pool: Tensor | None, *, sparse: bool) -> tuple[Tensor, Extra]:
        """Logits [m, vocab] float32 at the learned places, and the layers' losses, given the pool of visual tokens."""
        model = self.model
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            seen = None if pool is None else pool.index_select(0, micro.seen_from)
            x = model.embed(micro.ids, seen, micro.seen_to)
            hidden, extra = model.decode(x, micro.positions, micro.valid, micro.probes, sparse=sparse)
            logits = model.lm_head(hidden.flatten(0, 1).index_select(0, micro.loss_from))
        return logits.float(), extra

    def see(self, step: Step) -> Tensor | None:
        """The pool of visual tokens of a step."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            return see(self.model, step.passes)

    def backward(self, step: Step, progress: float, *, sparse: bool) -> None:
        """Add the gradient of a step's losses.

        Token losses are weighted means by kind of token, of trajectories and of readers apart.
        """
        recipe = self.recipe
        by_kind = torch.tensor(recipe.kind_weights(progress), device=self.device)
        pool = self.see(step)
        loss = torch.zeros((), device=self.device)
        for reader in (False, True):
            micros = [micro for micro in step.micros if micro.reader == reader]
            if not micros:
                continue
            weights = [by_kind[micro.loss_kind.long()] for micro in micros]
            whole = torch.stack([weight.sum() for weight in weights]).sum().clamp_min(1e-6)
            share = recipe.reader_weight if reader else 1.0
            for micro, weight in zip(micros, weights, strict=True):
                logits, extra = self.forward(micro, pool, sparse=sparse)
                each = F.cross_entropy(logits, micro.loss_to, reduction="none")
                layers = recipe.balance_weight * extra.balance + recipe.index_weight * extra.index_kl
                loss = loss + share * ((each * weight).sum() / whole + layers / len(micros))
                self._count(micro, logits.detach(), each.detach(), extra)
        if pool is not None and (strength := recipe.letter_weight(progress)) > 0:
            loss = loss + strength * self._letter_loss(step.micros, pool)
        loss.backward()  # type: ignore[no-untyped-call]

    def _letter_loss(self, micros: Sequence[Micro], pool: Tensor) -> Tensor:
        """How badly the visual tokens name their letters, per letter."""
        seen = torch.cat([micro.seen_from for micro in micros])
        starts, before = [], 0
        for micro in micros:
            starts.append(micro.letter_at + before)
            before += len(micro.seen_from)
        places = torch.cat(starts) * LABELS + torch.cat([micro.letter for micro in micros])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            logits = self.letters(pool.index_select(0, seen)).float()
        wanted = torch.zeros(logits.numel(), device=self.device).index_fill_(0, places, 1.0).view_as(logits)
        total = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=self._rarity, reduction="sum")
        loss = total / (LETTER_RARITY * max(len(places), 1))
        named = (logits.detach().flatten().index_select(0, places) > 0).double().sum()
        letters = torch.full_like(named, len(places))
        self.letter_sums += torch.stack((loss.detach().double(), torch.ones_like(named), named, letters))
        return loss

    @torch.no_grad()
    def _count(self, micro: Micro, logits: Tensor, each: Tensor, extra: Extra) -> None:
        rows = len(micro.families)
        wrong = (logits.argmax(-1) != micro.loss_to).double()
        reading, box = (micro.loss_kind == Kind.READING).double(), (micro.loss_kind == Kind.BOX).double()
        answer, loss = micro.loss_answer.double(), each.double()
        parts = (loss, torch.ones_like(loss), wrong * (1 - answer), wrong * answer, loss * reading, reading, wrong * reading, loss * box, box)  # fmt: skip # noqa: E501
        sums = torch.zeros(rows, len(parts), dtype=torch.float64, device=self.device)
        sums.index_add_(0, micro.loss_row, torch.stack(parts, 1))
        every, tokens, bad_call, bad_answer, read, read_tokens, bad_read, boxed, box_tokens = sums.unbind(1)
        reads = (read_tokens > 0).double()
        table = torch.stack(
            (torch.ones_like(every), every, tokens, (bad_call == 0).double(), (bad_answer == 0).double(),
             read, read_tokens, reads, (bad_read == 0).double() * reads, boxed, box_tokens), 1
        )  # fmt: skip
        self.counts[int(micro.reader)].index_add_(0, micro.families, table)
        if not micro.reader:
            one = torch.ones_like(extra.mass)
            self.layer_sums[:4] += torch.stack((extra.index_kl, extra.balance, extra.mass, one)).double().detach()

    def update(self, progress: float, step: int) -> float:
        """Average gradients over ranks, clip, step, clear. Returns the progress that all ranks agree on.

        With several ranks that is their mean at the step before, so that the host need not wait for this one.
        """
        if self.world > 1:
            self._flat[-1] = progress
            dist.all_reduce(self._flat)
            self._flat.div_(self.world)
            progress = self._agreed.next(self._flat[-1:])
        for part in (self._flat[: self._split], self._flat[self._split : -1]):
            norm = torch.linalg.vector_norm(part)
            scale = torch.where(norm.isfinite(), (self.recipe.clip / (norm + 1e-6)).clamp(max=1.0), 0.0)
            part.nan_to_num_(0.0, 0.0, 0.0).mul_(scale)
            self.layer_sums[4] += norm.double() if part.data_ptr() == self._flat.data_ptr() else 0.0
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(progress, step)
        self.optimiser.step()
        self._flat.zero_()
        return progress

    def forget(self) -> None:
        """Drop gradients and counts."""
        for values in (self._flat, self.counts, self.layer_sums, self.letter_sums):
            values.zero_()

    def warm_up(self, *, sparse: bool, readers: bool) -> None:
        """Compile every shape by one forward and backward on random numbers, and forget the gradients."""
        shape, buckets = self.model.shape, self.recipe.buckets
        self._warm_up_vision()
        for length, rows in (*buckets.main, *((buckets.reader,) if readers else ())):
            x = torch.randn(rows, length, shape.hidden, device=self.device, requires_grad=True)
            places = torch.arange(length, device=self.device, dtype=torch.int16).expand(3, rows, length)
            valid = torch.ones(rows, length, dtype=torch.bool, device=self.device)
            probes = torch.zeros(rows, buckets.probes, dtype=torch.int64, device=self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                hidden, extra = self.model.decode(x, places, valid, probes, sparse=sparse)
            (hidden.float().mean() + extra.index_kl + extra.balance).backward()  # type: ignore[no-untyped-call]
        self._flat.zero_()

    def _warm_up_vision(self) -> None:
        shape, buckets = self.model.shape, self.recipe.buckets
        half = shape.vision_width // shape.vision_heads // 2
        for rows, length, masked in (
            (buckets.frame_chunk, FRAME[0] * FRAME[1] // shape.patch**2, False),
            (buckets.mixed_chunk, buckets.mixed_tokens * shape.merge**2, True),
        ):
            lead = (rows, 1) if masked else ()
            one = Pass(
                torch.randn(rows, length, 3 * shape.patch**2, device=self.device),
                torch.zeros(*((rows,) if masked else ()), length, shape.table_side**2, device=self.device),
                torch.ones(*lead, length, half, device=self.device),
                torch.zeros(*lead, length, half, device=self.device),
                torch.ones(rows, length, dtype=torch.bool, device=self.device) if masked else None,
            )
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                pool = see(self.model, (one,))
            assert pool is not None
            pool.float().mean().backward()  # type: ignore[no-untyped-call]
        self._flat.zero_()
