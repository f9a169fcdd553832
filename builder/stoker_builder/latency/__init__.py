"""How fast: interleaved measurement, what it is compared with, memory, and the machine."""
