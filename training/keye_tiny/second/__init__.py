"""keye-tiny's second lesson: facts looked up in documents, moments searched for, videos watched whole."""
