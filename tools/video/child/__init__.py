"""The guarded half: a process that opens and decodes untrusted media for the tools and holds no other rights.

Its modules import the standard library, PyAV, NumPy and OpenCV alone, so that it starts fast.
"""
