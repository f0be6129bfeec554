"""A random llama of a few hundred thousand parameters with a tokenizer of its own, made in a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# What the tokenizer learns its pieces from: enough scripts that characters of several bytes come apart into tokens.
CORPUS = (
    "Why is the sky blue? The light of the sun meets the air, and blue is scattered most.",
    "¿Por qué el cielo es azul? La luz del sol choca con el aire y el azul se dispersa más.",
    "Pourquoi le ciel est-il bleu ? La lumière rencontre l'air et le bleu s'éparpille.",
    "Warum ist der Himmel blau? Das Licht trifft die Luft, und das Blaue wird gestreut.",
    "Por que o céu é azul? A luz encontra o ar e o azul se espalha mais.",
    "天空为什么是蓝色的？阳光遇到空气，蓝光散射得最多。",
    "لماذا السماء زرقاء؟ يلتقي ضوء الشمس بالهواء فيتشتت الأزرق أكثر.",
    "आसमान नीला क्यों है? सूरज की रोशनी हवा से मिलती है और नीला सबसे ज़्यादा बिखरता है।",
    "空はなぜ青いのですか。太陽の光が空気に当たり、青がいちばん散らばるからです。",
    "Kwa nini anga ni la bluu? Mwanga wa jua hukutana na hewa na rangi ya bluu husambaa zaidi.",
)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 4096


def make_tiny_model(
    folder: Path, seed: int = 0, *, hidden: int = 64, ends: bool = True, context: int = CONTEXT
) -> Path:
    """Save a random llama (2 layers) and its byte-level tokenizer as a model folder; the same seed, the same weights.

    With `ends=False` it practically never says its end-of-text token, so that its answers are as long as is asked.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Logits that spread over a few nats: sampled texts differ by seed, and weights matter to them.
        model.lm_head.weight.normal_(std=0.4)
        if not ends:  # a logit of 0 below others of some 28: at 11, one in 60,000 tokens ended an answer all the same
            model.lm_head.weight.mul_(3)
            model.lm_head.weight[tokenizer.all_special_ids] = 0
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(folder: Path, model: Path, seed: int = 0, *, strength: float = 1.0) -> Path:
    """Save random LoRA weights (rank 4) for the attention of a tiny model; returns the adapter's file."""
    import torch
    from transformers import AutoConfig

    from trainer.policy.adapters import FILE_NAME, write_adapter

    config = AutoConfig.from_pretrained(model)
    head = config.hidden_size // config.num_attention_heads
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for layer in range(config.num_hidden_layers):
        for name, heads in (("q", config.num_attention_heads), ("v", config.num_key_value_heads)):
            down = torch.randn(4, config.hidden_size, generator=generator) * strength
            up = torch.randn(heads * head, 4, generator=generator) * strength
            pairs[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = (down, up)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    write_adapter(path, pairs, alpha=8, base=model.name)
    return path


def save_adapter(folder: Path, base: Path, **config: Any) -> Path:
    """Have peft save a random adapter of a model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(task_type="CAUSAL_LM", **config))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)
    return folder
