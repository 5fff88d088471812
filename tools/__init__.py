"""What the model can do: typed Python functions, video, search, code."""

if not __name__.startswith("keyeloop."):
    raise ImportError(f"import keyeloop.{__name__}, not {__name__}: two copies of a class never compare equal")
