"""Latent-variable models and the diffusion transforms."""
