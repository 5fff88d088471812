"""Board videos: synthetic footage with known answers, for demos, tests and training."""
