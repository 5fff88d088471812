"""What the pages look like: a style sheet, a script, a picture for the tab."""
