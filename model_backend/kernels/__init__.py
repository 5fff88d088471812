"""Sparse attention over paged memory: Triton kernels, a torch reference beside each, and ``ops``, which chooses."""
