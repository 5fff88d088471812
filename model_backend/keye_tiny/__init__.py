"""keye-tiny, the embedded model: its weights, tokenizer and card."""
