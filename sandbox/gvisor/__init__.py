"""Sandboxes by gVisor's ``runsc`` alone, without a daemon, for root."""
