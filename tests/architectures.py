"""Small random models of several architectures, saved as folders, and what transformers computes with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 97
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA_FAMILY: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "llama-biased": {"attention_bias": True},
    "llama3-rope": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        },
    },
    "qwen2": {},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "mistral": {"sliding_window": None},
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 128, "vocab_size": VOCABULARY},
    "gpt_neox": COMMON,
    "opt": {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "phi": COMMON,
    "gemma": {**COMMON, "head_dim": 8},
    "gemma2": {**COMMON, "head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 3.0},
    "gemma3_text": {
        **COMMON,
        "head_dim": 8,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "cohere": {**COMMON, "logit_scale": 0.25},
    "granite": {**COMMON, "logits_scaling": 4.0},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mixtral": {**COMMON, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        **COMMON,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "llama-mlp-bias": {**COMMON, "mlp_bias": True},
    "mistral-sliding": {**COMMON, "sliding_window": 6},
}

# Logits are capped in a way that no common setting tells; tokens see those that come after them.
UNTRAINABLE: dict[str, dict[str, Any]] = {
    "recurrent_gemma": {**COMMON, "logits_soft_cap": 3.0, "lru_width": 32, "attention_window_size": 16},
    "gemma3_text-bidirectional": {**OTHERS["gemma3_text"], "use_bidirectional_attention": True},
}  # fmt: skip


def make_model(folder: Path, name: str, **changes: Any) -> Path:
    """Save a random model, some options changed; every weight counts, the biases and the gains of the norms too."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = name.split("-")[0].removesuffix("3") if name.startswith("llama") else name.split("-")[0]
    options = {**COMMON, **LLAMA_FAMILY[name]} if name in LLAMA_FAMILY else (OTHERS | UNTRAINABLE)[name]
    options = {**options, **changes}
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    return folder


def reference_model(folder: Path) -> Any:
    """The model of a folder as transformers runs it, in fp32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def tokens(seed: int, *lengths: int) -> list[list[int]]:
    """Random token ids, one list a length; none of them is a special token."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def reference_logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """(length, vocabulary): what transformers says after each token of one sequence, without any padding."""
    return model(torch.tensor([list(ids)])).logits[0]
