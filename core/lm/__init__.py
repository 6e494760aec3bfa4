"""Decoder language models: one module for six families, weights from safetensors, tokenizers."""

from core.lm.config import DecoderConfig, RopeScaling, read_config
from core.lm.decoder import Decoder, token_losses
from core.lm.loading import load_params
from core.lm.tokenizers import ByteTokenizer, FileTokenizer, Tokenizer

__all__ = [
    "ByteTokenizer", "Decoder", "DecoderConfig", "FileTokenizer", "RopeScaling", "Tokenizer", "load_params",
    "read_config", "token_losses",
]  # fmt: skip
