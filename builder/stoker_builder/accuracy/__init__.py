"""How right: answers, gates, verdicts and golden sets."""
