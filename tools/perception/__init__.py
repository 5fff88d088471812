"""What other models perceive for this one: text in pictures, speech in sound. Each engine stands behind a protocol."""
