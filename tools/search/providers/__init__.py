"""Who can be asked: one provider a file, all with the same answer."""
