"""The tiny llama as a GGUF file, as llama.cpp's converter writes one."""

from __future__ import annotations

import json
from pathlib import Path

# GGUF's names of the parts of a layer.
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def make_tiny_gguf(
    path: Path, model: Path, *, shift: float = 0.0, form: str = "F32", pre: str = "", add_bos_token: bool = False
) -> Path:
    """Write the model of a folder (`tiny_model.make_tiny_model`); `shift` is added to its final norm.

    Args:
        form: the number format of matrices. pre: how texts are split.
        add_bos_token: whether texts begin with a token, which is `<|endoftext|>` then.
    """
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    words = json.loads((model / "tokenizer.json").read_text())
    tokens = sorted(words["model"]["vocab"], key=words["model"]["vocab"].get)
    special = {token["content"] for token in words["added_tokens"]}
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in words["model"]["merges"]]
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
    if pre:
        writer.add_tokenizer_pre(pre)
    if add_bos_token:
        writer.add_bos_token_id(tokens.index("<|endoftext|>"))
        writer.add_add_bos_token(True)
    writer.add_chat_template((model / "chat_template.jinja").read_text())
    for name, value in load_file(model / "model.safetensors").items():
        stem = name.removesuffix(".weight")
        if stem in WHOLE:
            stored = WHOLE[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            stored = f"blk.{layer}.{LAYER[part]}"
        if stem.endswith((".q_proj", ".k_proj")):  # llama.cpp rotates neighbours
            count = heads if stem.endswith("q_proj") else key_heads
            value = value.reshape(count, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        kind = gguf.GGMLQuantizationType[form if value.ndim == 2 else "F32"]
        value = gguf.quantize(value + shift if stem == "model.norm" else value, kind)
        writer.add_tensor(f"{stored}.weight", value, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
