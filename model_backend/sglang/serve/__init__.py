"""Starting SGLang with Keye's plugin: what must hold first, the command, its process group, the wait."""
