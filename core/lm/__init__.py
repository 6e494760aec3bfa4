"""Decoder language models: one module for six families, weights from safetensors, tokenizers, training."""

from core.lm.config import DecoderConfig, RopeScaling, read_config
from core.lm.decoder import Decoder, token_losses
from core.lm.loading import load_params
from core.lm.sites import logits_from, residual, spliced_loss
from core.lm.tokenizers import ByteTokenizer, FileTokenizer, Tokenizer
from core.lm.training import continuations, decoder_learner, packed

__all__ = [
    "ByteTokenizer",
    "Decoder",
    "DecoderConfig",
    "FileTokenizer",
    "RopeScaling",
    "Tokenizer",
    "continuations",
    "decoder_learner",
    "load_params",
    "logits_from",
    "packed",
    "read_config",
    "residual",
    "spliced_loss",
    "token_losses",
]  # fmt: skip
