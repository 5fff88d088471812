"""One optimiser step of keye-tiny over several micro-batches, on one device or one rank of many."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from training.keye_tiny.batch import Micro, Pass, see
from training.keye_tiny.model import Extra, KeyeTiny, run_layer
from training.keye_tiny.recipe import Recipe
from training.keye_tiny.supply import FRAME, MIXED_TOKENS
from training.keye_tiny.vision import run_vision_layer

COLUMNS = ("rows", "loss", "tokens", "calls right", "answers right")


class Learner:
    """Model, optimiser and counters. Gradients live in one flat buffer, the indexer's at its end."""

    def __init__(self, model: KeyeTiny, recipe: Recipe, families: int, *, compiled: bool) -> None:
        self.model, self.recipe = model, recipe
        self.device = next(model.parameters()).device
        self.amp = self.device.type == "cuda"
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        named = sorted(model.named_parameters(), key=lambda item: "sa_indexer" in item[0])
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
            fused=self.amp,
        )
        self.counts = torch.zeros(2, families, len(COLUMNS), dtype=torch.float64, device=self.device)
        self.layer_sums = torch.zeros(5, dtype=torch.float64, device=self.device)
        if self.world > 1:
            for weight in model.parameters():
                dist.broadcast(weight.data, 0)
        if compiled:
            torch._dynamo.config.recompile_limit = 64
            model.layer_step = torch.compile(run_layer, dynamic=False)
            model.visual.step = torch.compile(run_vision_layer, dynamic=False)

    def forward(self, micro: Micro, *, sparse: bool) -> tuple[Tensor, Extra]:
        """Logits [m, vocab] float32 at the learned places, and the layers' losses."""
        model = self.model
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            pool = see(model, micro.passes)
            seen = None if pool is None else pool.index_select(0, micro.seen_from)
            x = model.embed(micro.ids, seen, micro.seen_to)
            hidden, extra = model.decode(x, micro.positions, micro.valid, micro.probes, sparse=sparse)
            logits = model.lm_head(hidden.flatten(0, 1).index_select(0, micro.loss_from))
        return logits.float(), extra

    def backward(self, micro: Micro, tokens: int, share: float, *, sparse: bool) -> None:
        """Add the gradient of one micro-batch; its loss is summed over ``tokens``, its layer losses count ``share``."""
        recipe = self.recipe
        logits, extra = self.forward(micro, sparse=sparse)
        each = F.cross_entropy(logits, micro.loss_to, reduction="none")
        weight = recipe.reader_weight if micro.reader else 1.0
        loss = weight * each.sum() / tokens
        loss = loss + share * (recipe.balance_weight * extra.balance + recipe.index_weight * extra.index_kl)
        loss.backward()  # type: ignore[no-untyped-call]
        self._count(micro, logits.detach(), each.detach(), extra)

    @torch.no_grad()
    def _count(self, micro: Micro, logits: Tensor, each: Tensor, extra: Extra) -> None:
        wrong = logits.argmax(-1) != micro.loss_to
        rows = len(micro.families)
        table = torch.zeros(rows, len(COLUMNS), dtype=torch.float64, device=self.device)
        table[:, 0] = 1
        table[:, 1].index_add_(0, micro.loss_row, each.double())
        table[:, 2].index_add_(0, micro.loss_row, torch.ones_like(each, dtype=torch.float64))
        bad_call = torch.zeros(rows, dtype=torch.float64, device=self.device)
        bad_answer = torch.zeros_like(bad_call)
        bad_call.index_add_(0, micro.loss_row, (wrong & ~micro.loss_answer).double())
        bad_answer.index_add_(0, micro.loss_row, (wrong & micro.loss_answer).double())
        table[:, 3], table[:, 4] = (bad_call == 0).double(), (bad_answer == 0).double()
        self.counts[int(micro.reader)].index_add_(0, micro.families, table)
        if not micro.reader:
            one = torch.ones_like(extra.mass)
            self.layer_sums[:4] += torch.stack((extra.index_kl, extra.balance, extra.mass, one)).double()

    def update(self, progress: float, step: int) -> float:
        """Average gradients over ranks, clip, step, clear. Returns the ranks' mean ``progress``, so that all agree."""
        if self.world > 1:
            self._flat[-1] = progress
            dist.all_reduce(self._flat)
            self._flat.div_(self.world)
            progress = float(self._flat[-1])
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
            (buckets.mixed_chunk, MIXED_TOKENS * shape.merge**2, True),
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
