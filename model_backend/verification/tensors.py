"""Names and shapes of the stored tensors; no weight is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.layout import Stored, assign, published_shapes
from keyeloop.model_backend.keye.weights import INDEX_FILE, CheckpointFiles
from keyeloop.model_backend.verification.checkpoint import Checkpoint
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.model_backend.verification.known import SERVING_CODE, Known
from keyeloop.runtime.errors import CheckpointError, ConfigError, InputError

LAYOUT = "model_backend/keye/layout.py"
INDEXER = "model_backend/keye/indexer.py"
FIRST = "model.layers.0.self_attn.sa_indexer."
MOST_CHARS = 240


def check_tensors(checkpoint: Checkpoint, known: Known | None) -> Iterator[Finding]:
    """Every published name and shape, the count of parameters, and point 6."""
    source = known.source("weights") if known else SERVING_CODE
    config = _config(checkpoint, known)
    stored, problem = _stored(checkpoint)
    expected = f"{known.parameters:,} parameters under the published names" if known else "the published names"
    named = checkpoint.json(INDEX_FILE).get("weight_map")
    if config is not None and stored is None and isinstance(named, dict):
        yield _names(config, set(map(str, named)), expected, source)
    elif config is None or stored is None:
        found = problem or "its config.json tells no shape"
        yield judged("weights", None, None, expected=expected, found=found, source=source, change=LAYOUT)
    else:
        yield _fit(config, known, stored, checkpoint, expected, source)
    yield _indexer_tensors(config, stored, known)
    yield _indexer_code(checkpoint, known)


def _config(checkpoint: Checkpoint, known: Known | None) -> KeyeConfig | None:
    """What the weights are held against: the checkpoint's own sizes, or the known ones where it tells none."""
    try:
        return KeyeConfig.from_dict(checkpoint.config)
    except ConfigError:
        return known.config if known else None


def _stored(checkpoint: Checkpoint) -> tuple[Mapping[str, Stored] | None, str]:
    try:
        return CheckpointFiles(checkpoint.folder).stored, ""
    except (InputError, CheckpointError) as error:
        return None, str(error)[:MOST_CHARS]


def _names(config: KeyeConfig, named: set[str], expected: str, source: str) -> Finding:
    """The index alone: a name that is missing differs, unless experts are stored one by one; shapes stay unknown."""
    missing = sorted(set(published_shapes(config)) - named)
    one_by_one = any(".mlp.experts.0." in name for name in named)
    found = f"{len(named):,} names in {INDEX_FILE}, all that are needed; shapes need the weight files"
    if missing:
        found = f"{len(missing)} names are not in {INDEX_FILE}, such as {missing[0]}"
    return judged("weights", None, False if missing and not one_by_one else None, expected=expected, found=found,
                  source=source, change=LAYOUT)  # fmt: skip


def _fit(
    config: KeyeConfig, known: Known | None, stored: Mapping[str, Stored], checkpoint: Checkpoint, expected: str,
    source: str,
) -> Finding:  # fmt: skip
    shapes = published_shapes(config)
    total = 0
    for shape in shapes.values():
        count = 1
        for side in shape:
            count *= side
        total += count
    holds, found = True, f"{total:,} parameters, every name and shape"
    try:
        assign(shapes, stored, str(checkpoint.folder))
    except CheckpointError as error:
        holds, found = False, str(error).partition(": ")[2][:MOST_CHARS]
    if known is not None and holds and total != known.parameters:
        holds = False
    return judged("weights", None, holds, expected=expected, found=found, source=source, change=LAYOUT)


def _indexer_tensors(config: KeyeConfig | None, stored: Mapping[str, Stored] | None, known: Known | None) -> Finding:
    """The gate travels in ``q_proj``; ``k_norm`` has a bias, so it is a LayerNorm; ``q_norm`` has none."""
    expected = "gates in q_proj, one key head, q_norm RMS, k_norm LayerNorm"
    source = known.source("indexer") if known else SERVING_CODE
    if config is None or stored is None:
        return judged("indexer-tensors", 6, None, expected=expected, found="no tensor headers", source=source,
                      change=INDEXER)  # fmt: skip
    index = config.indexer
    wanted = {
        "q_proj.weight": (index.num_heads * (index.head_dim + 1), config.hidden_size),
        "k_proj.weight": (index.head_dim, config.hidden_size),
        "q_norm.weight": (index.head_dim,),
        "k_norm.weight": (index.head_dim,),
        "k_norm.bias": (index.head_dim,),
    }
    have = {name.removeprefix(FIRST): one.shape for name, one in stored.items()
            if name.startswith(FIRST) and not name.endswith(".scale")}  # fmt: skip
    off = [f"{name} {list(have[name]) if name in have else 'missing'}" for name in sorted({*wanted, *have})
           if have.get(name) != wanted.get(name)]  # fmt: skip
    return judged("indexer-tensors", 6, not off, expected=expected, found=", ".join(off) or "the same", source=source,
                  change=INDEXER)  # fmt: skip


def _indexer_code(checkpoint: Checkpoint, known: Known | None) -> Finding:
    """The class whose name holds ``Indexer``, as text: which of the telling words stand in it."""
    code = "\n".join(checkpoint.code_like("modeling").values())
    found_class = re.search(r"^class \w*Indexer\w*\b.*?(?=^class |\Z)", code, re.DOTALL | re.MULTILINE)
    holds, found = None, "no modeling_*.py with an indexer"
    if found_class is not None:
        body = found_class[0]
        agree = {word: re.search(pattern, body) is not None for word, pattern in (
            ("relu", r"relu"), ("LayerNorm", r"LayerNorm\("), ("Hadamard", r"(?i)hadamard"),
            ("rope", r"(?i)rotary|rope"),
        )}  # fmt: skip
        odd = [word for word, pattern in (("sigmoid", r"sigmoid"), ("part of each head without rope", r"nope"))
               if re.search(pattern, body)]  # fmt: skip
        holds = False if odd else True if agree["relu"] and agree["LayerNorm"] and agree["rope"] else None
        named = [word for word, there in agree.items() if there]
        found = f"read as text: {', '.join(odd or named) or 'none of the telling words'}"
    elif known is not None and not known.own_code and not code:
        holds, found = True, "no code of its own: ours trained it"
    return judged("indexer-code", 6, holds, expected="relu scores, LayerNorm keys, rope on every dimension",
                  found=found, source=known.source("indexer") if known else SERVING_CODE, change=INDEXER)  # fmt: skip
