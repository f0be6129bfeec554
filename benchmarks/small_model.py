"""A small language model made on the spot, for benchmarks that train many times: a llama of two layers over pieces of
letters, fitted for a few seconds to the demo's prompts, as answers to one another.

It says nothing of sense, but what it says has the letters and lengths of short sentences in six languages, and it ends
by itself about as often as it is cut off: a policy has something to move, and a habit of finishing to pick up.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

from workbench.demo.languages import prompts

LANGUAGES = ("en", "es", "fr", "de", "pt", "sw")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY, HIDDEN, LAYERS, CONTEXT = 512, 96, 2, 512
STEPS, BATCH, RATE, LONGEST = 120, 16, 3e-3, 120


@cache
def texts() -> list[tuple[str, str]]:
    """The demo's prompts in languages with Latin letters, as `(language, text)`."""
    return [(asked.language, asked.text) for asked in prompts() if asked.language in LANGUAGES]


def made(folder: Path, seed: int = 0) -> Path:
    """The model's folder, made once: a second call returns what is there."""
    if not (folder / "config.json").exists():
        partial = folder.with_name(folder.name + ".partial")
        tokenizer = _tokenizer([text for _, text in texts()])
        _fitted(tokenizer, seed).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    return folder


def _tokenizer(corpus: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, eos_token=SPECIAL[2], pad_token=SPECIAL[0], chat_template=TEMPLATE
    )


def _fitted(tokenizer: Any, seed: int) -> Any:
    """A llama that has learned to answer any of the texts with another of the same language."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        chosen = random.Random(seed)
        optimizer = torch.optim.AdamW(model.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
        for _ in range(STEPS):
            inputs, labels = _batch(tokenizer, chosen)
            model(input_ids=inputs, labels=labels).loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


def _batch(tokenizer: Any, chosen: random.Random) -> tuple[Any, Any]:
    """(B, T) token ids and labels; padding, which stands to the right, has the label that does not count."""
    import torch

    rows = []
    for language, question in chosen.choices(texts(), k=BATCH):
        answer = chosen.choice([text for own, text in texts() if own == language])
        asked = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                              add_generation_prompt=True)  # fmt: skip
        rows.append(tokenizer(asked + answer + SPECIAL[2], add_special_tokens=False)["input_ids"][:LONGEST])
    longest = max(map(len, rows))
    inputs = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    return inputs, labels
