"""The pages, in Jinja2; everything that a run holds is escaped."""
