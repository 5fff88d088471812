"""A recorded question played again: from its record alone, with its tools for real, from a turn on, or to its end.

The loop runs as it always does. What it asks the model and the tools for is taken from the record as long as that
lasts, and what it records is held against it: so everything that the loop keeps in its head is there again when the
record ends, and a difference is found where it arises.
"""
