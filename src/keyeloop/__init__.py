"""keyeloop: an agent that watches."""
