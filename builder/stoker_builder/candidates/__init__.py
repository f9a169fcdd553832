"""Making candidates: recipes, quantisation, and the audit of what the optimiser made of them."""
