"""Stand-ins of keyeloop's own that let SGLang run on a CPU where its published wheels carry no CPU kernels.

``python -m keyeloop.model_backend.sglang.cpu_kernels`` puts them into the environment that runs it. Not SGLang's code,
and not for a machine with a GPU: see :mod:`.install`.
"""
