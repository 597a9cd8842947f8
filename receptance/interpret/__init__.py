"""Looking inside a model while it reads.

for layer in memory(model, tokens):
    print(layer.half_life, layer.norm)
"""

from .memory import HalfLife, LayerMemory, decays, memory

__all__ = ["HalfLife", "LayerMemory", "decays", "memory"]
