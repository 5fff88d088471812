"""The planner: asks the model, runs its tool calls, records every step, answers with citations."""

if not __name__.startswith("keyeloop."):
    raise ImportError(f"import keyeloop.{__name__}, not {__name__}: two copies of a class never compare equal")
