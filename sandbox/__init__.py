"""Where untrusted code runs: one protocol, one worker, several engines."""

if not __name__.startswith("keyeloop."):
    raise ImportError(f"import keyeloop.{__name__}, not {__name__}: two copies of a class never compare equal")
