"""A user's own module, of the name that is most likely to collide."""

SHELVES = ("top", "low")
