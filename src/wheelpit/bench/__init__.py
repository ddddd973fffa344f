"""Load generator for any OpenAI-compatible server: `wheelpit bench` and benchmarks/ drive it.

Reads top to bottom as one run: `workload` draws lengths and arrivals, `target` asks the server
how it takes prompts, `prompts` writes them, `load` sends them over `http_stream`, `measure` turns
the arrivals into latencies, `report` prints them. Nothing here imports torch or the engine.
"""
