"""TRL's PPO, one step a turn: `trl_ppo.py MODEL_FOLDER TOKENS EPOCHS PROMPT_IDS DTYPE`; see benchmarks/peer.py.

Four models, as TRL has it: the policy with LoRA (its base, adapters off, is the reference), the value model and the
reward model. It runs in TRL's own virtual environment, so it imports nothing of ours.
"""

import json
import os
import resource
import sys
import tempfile
import time

import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what the libraries print must not mix with the answers


class Turns(TrainerCallback):
    """Waits for the next turn after each step, and ends the program when there is none."""

    def on_train_begin(self, *_, **__):
        print(
            json.dumps({"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}),
            file=answers,
        )
        self.wait()

    def on_step_end(self, *_, **__):
        seconds = time.perf_counter() - self.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(json.dumps({"seconds": seconds, "peak_mb": peak}), file=answers)
        self.wait()

    def wait(self):
        if not sys.stdin.readline():
            os._exit(0)
        self.began = time.perf_counter()


def main() -> None:
    folder, tokens, epochs, prompts, dtype = sys.argv[1:]
    prompts = json.loads(prompts)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = "<|endoftext|>"  # its own is the token that ends each turn of the chat

    def scorer():
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
        model.config.pad_token_id = tokenizer.pad_token_id
        return model

    with tempfile.TemporaryDirectory() as output:
        config = PPOConfig(
            output_dir=output,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            num_mini_batches=2,
            local_rollout_forward_batch_size=16,
            num_ppo_epochs=int(epochs),
            total_episodes=len(prompts) * 1000,
            response_length=int(tokens),
            temperature=1.0,
            learning_rate=1e-5,
            num_sample_generations=0,
            bf16=dtype == "bfloat16",
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        data = Dataset.from_dict({"input_ids": prompts})
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
            ref_model=None,
            reward_model=scorer(),
            value_model=scorer(),
            train_dataset=data,
            eval_dataset=data,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[Turns()],
        )
        trainer.train()


if __name__ == "__main__":
    main()
