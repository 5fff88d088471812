"""Reading what nobody vouches for in a child process without rights: its start, its limits, and how it is talked to.

Its modules import the standard library alone, so that a child starts fast.
"""
