"""``python -m keyeloop.model_backend.sglang.cpu_kernels``: put the CPU stand-ins into this environment."""

from __future__ import annotations

from keyeloop.model_backend.sglang.cpu_kernels.install import install

if __name__ == "__main__":
    print("\n".join(install()))
