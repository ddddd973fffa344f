"""Wheelpit: async online LLM serving. The public names, imported when first used."""
