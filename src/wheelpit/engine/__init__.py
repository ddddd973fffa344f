"""The engine: the front end's half (asyncio, no torch) and the engine process's half."""
