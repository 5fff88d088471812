"""SGLang looks here for multimodal processors."""
