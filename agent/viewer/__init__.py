"""Recorded runs as web pages: for the loopback server of ``keyeloop view``, and as one file for ``--export``.

Reads journals and media, knows nothing of agents at work, and changes nothing. Python makes every page whole, so that
it can be read without the script; the script adds what needs a hand or a clock: playing the source, keys, following a
run that goes on.
"""
