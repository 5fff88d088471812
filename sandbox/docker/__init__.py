"""Sandboxes in containers of a Docker daemon, by runc or gVisor's runsc."""
