"""CUDA C++ for Hopper, compiled at first use by torch's own NVRTC: what Triton cannot say."""
