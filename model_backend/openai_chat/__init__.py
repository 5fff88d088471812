"""A client for any OpenAI-compatible chat endpoint: SGLang, vLLM, llama.cpp's server, hosted models."""
