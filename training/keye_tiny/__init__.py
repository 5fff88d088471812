"""keye-tiny: generator, trainer and evaluation."""
