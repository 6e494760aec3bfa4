"""The parts of ``causal_diffae``: strokes with exact counterfactuals, small worlds, real digits."""
