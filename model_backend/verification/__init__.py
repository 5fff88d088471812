"""Holds a checkpoint, and a server that runs it, against what this project takes for granted about Keye-VL-2.0."""
