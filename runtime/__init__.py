"""What every run stands on: content, evidence, media, journal, budget, errors."""

if not __name__.startswith("keyeloop."):
    raise ImportError(f"import keyeloop.{__name__}, not {__name__}: two copies of a class never compare equal")
