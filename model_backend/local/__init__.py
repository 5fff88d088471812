"""A small engine for one request at a time: the embedded model on CPU or one GPU."""
