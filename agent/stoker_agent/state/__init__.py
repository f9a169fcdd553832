"""What the agent remembers: the journal, the blob store and the slot files."""
