"""The Model Context Protocol, with its official SDK (the extra ``mcp``): tools of other programs, and ours for them."""
