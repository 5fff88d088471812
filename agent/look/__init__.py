"""Looking without a model: a person's wishes, the pictures that fulfil them, as files and in a terminal."""
