"""Serving Keye-VL-2.0 with SGLang: a plugin for it, a launcher of it, a client of its native interface."""
