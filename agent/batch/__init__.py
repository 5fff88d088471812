"""Many tasks: running them at once, reading them from a file, keeping their results in another, showing progress."""
