"""The HTTP front end: OpenAI's API over an `AsyncLLMEngine`. Never imports torch."""
