"""Who thinks: served models, the local engine, scripted fakes, and Keye's architecture in torch."""

if not __name__.startswith("keyeloop."):
    raise ImportError(f"import keyeloop.{__name__}, not {__name__}: two copies of a class never compare equal")
