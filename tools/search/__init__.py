"""Search over a folder of documents: an embedded index, and the tool that asks it."""
