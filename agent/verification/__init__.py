"""Asks a running server about rendered videos with known answers, and tells where it differs from what we expect."""
