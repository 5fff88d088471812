"""SGLang looks here for model classes: every module's ``EntryClass``."""
