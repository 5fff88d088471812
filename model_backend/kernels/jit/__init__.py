"""Triton kernels with their launchers. They run on any NVIDIA GPU that Triton knows, and in its interpreter."""
