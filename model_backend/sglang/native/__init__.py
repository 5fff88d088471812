"""A client of SGLang's own interface: a request goes as token ids, a reply comes as token ids and their logprobs."""
