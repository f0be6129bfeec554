"""The proof of a version: what it answers to fixed prompts, and when an answer counts as the same."""

from __future__ import annotations

import msgspec
import pytest
import torch
from architectures import make_model

from storage.errors import WorkbenchError
from storage.workspace import Workspace
from trainer.policy import probe
from trainer.policy.adapters import Adapter
from trainer.policy.backbone import Backbone
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.llama import LlamaNetwork
from trainer.policy.models import ModelFolder, resolve
from trainer.policy.probe import MARGIN, ROUNDING, Environment, Probe, distance, prove, take

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14, 15, 16, 17, 18, 19]]


class Speaker:
    """A decoder that answers as it is told."""

    device = CPU

    def __init__(self, answer: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> None:
        self.network = object.__new__(LlamaNetwork)
        self.network.layers = []
        self.answer = answer
        self.dtype = dtype
        self.asked = 0

    def next_logprobs(self, prompts):
        self.asked += 1
        return self.answer


def answer(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 97, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(-1)


def stored(of: torch.Tensor, dtype: torch.dtype = torch.bfloat16, threads: int | None = None) -> Probe:
    likeliest = of.topk(64)
    here = Environment.of(Speaker(of, dtype))
    where = here if threads is None else msgspec.structs.replace(here, threads=threads)
    return Probe(PROMPTS, likeliest.indices.tolist(), likeliest.values.tolist(), probe.digest_of(of), where)


def shifted(of: torch.Tensor, by: float, seed: int = 1) -> torch.Tensor:
    """An answer at some distance, in nats, from another."""
    direction = torch.randn(of.shape, generator=torch.Generator().manual_seed(seed))
    return of + by * direction / direction.square().mean().sqrt()


def test_the_same_bits_are_exact_and_nobody_else_is_asked():
    old = Speaker(answer(1))
    assert prove("v1", stored(answer()), Speaker(answer()), old) == "exact"
    assert old.asked == 0


def test_other_bits_are_refused_where_the_same_would_come_out():
    near = Speaker(shifted(answer(), 0.001))
    with pytest.raises(WorkbenchError, match="to the bit") as caught:
        prove("v1", stored(answer()), near)
    assert "probe.json" in caught.value.hint
    assert prove("v1", stored(answer(), threads=99), near).startswith("within 0.00")


@pytest.mark.parametrize(("name", "value"), [("device", torch.device("mps")), ("network", None)])
def test_the_same_bits_are_demanded_only_where_they_are_known_to_repeat(name, value):
    near = Speaker(shifted(answer(), 0.001))
    setattr(near, name, value)
    kept = msgspec.structs.replace(stored(answer()), environment=Environment.of(near))
    assert prove("v1", kept, near).startswith("within 0.00")


@pytest.mark.parametrize("dtype", ROUNDING)
def test_elsewhere_rounding_is_allowed_and_more_is_not(dtype):
    kept, bound = stored(answer(), dtype, threads=99), MARGIN * ROUNDING[dtype]
    assert prove("v1", kept, Speaker(shifted(answer(), 0.7 * bound), dtype)).startswith("within ")
    with pytest.raises(WorkbenchError, match="rounding explains"):
        prove("v1", kept, Speaker(shifted(answer(), 1.5 * bound), dtype))


def test_between_two_formats_the_coarser_one_decides():
    off = shifted(answer(), 0.5 * MARGIN * ROUNDING[torch.bfloat16])
    assert prove("v1", stored(answer(), torch.bfloat16), Speaker(off, torch.float32)).startswith("within ")
    assert prove("v1", stored(answer(), torch.float32), Speaker(off, torch.bfloat16)).startswith("within ")
    with pytest.raises(WorkbenchError, match="rounding explains"):
        prove("v1", stored(answer(), torch.float32, threads=99), Speaker(off, torch.float32))


def test_an_answer_that_is_not_finite_is_refused():
    with pytest.raises(WorkbenchError, match="nan nats"):
        prove("v1", stored(answer(), threads=99), Speaker(torch.full((3, 97), torch.nan)))


def test_the_new_version_must_be_nearer_than_the_one_before():
    rounding = ROUNDING[torch.bfloat16]
    kept, former = stored(answer(), threads=99), Speaker(shifted(answer(), 2 * rounding, seed=2))
    assert prove("v1", kept, Speaker(shifted(answer(), rounding)), former).startswith("within ")
    for stale in (former.answer, shifted(former.answer, 0.5 * rounding, seed=3)):
        with pytest.raises(WorkbenchError, match="its weights still answer") as caught:
            prove("v1", kept, Speaker(stale), former)
        assert "start the engine again" in caught.value.hint


def test_versions_that_rounding_hides_from_each_other_are_said_to_be_so():
    rounding = ROUNDING[torch.bfloat16]
    kept, former = stored(answer(), threads=99), Speaker(shifted(answer(), 0.5 * rounding, seed=2))
    assert prove("v1", kept, Speaker(shifted(answer(), 0.6 * rounding)), former).endswith("as is the version before")
    with pytest.raises(WorkbenchError, match="its weights still answer"):
        prove("v1", kept, Speaker(former.answer), former)  # the very bits of the version before


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "bloom"])
def test_what_else_is_in_the_batch_does_not_matter(kind, tmp_path):
    folder = make_model(tmp_path, kind)
    decoder = Decoder.load(folder, CPU, torch.float32, None)
    together = decoder.next_logprobs(PROMPTS)
    assert together.shape == (3, decoder.vocabulary)
    assert torch.allclose(together.exp().sum(-1), torch.ones(3), atol=1e-5)
    for place, prompt in enumerate(PROMPTS):
        assert torch.allclose(decoder.next_logprobs([prompt])[0], together[place], atol=1e-4)
        assert torch.allclose(decoder.next_logprobs([PROMPTS[0] * 3, prompt])[1], together[place], atol=1e-4)


def test_it_survives_its_file(tiny_model, tmp_path):
    decoder = Decoder.load(tiny_model, CPU, torch.float32, None)
    taken = take(decoder, ChatTokenizer.load(tiny_model))
    assert taken is not None
    assert sum(map(len, taken.prompts)) > 64, "many rows: the plain products, not those of a few rows"
    probe.write(tmp_path, taken)
    read = probe.read(tmp_path, decoder.vocabulary, decoder.context)
    assert read is not None
    assert prove("v0", read, decoder) == "exact"
    assert distance(read, decoder.next_logprobs(read.prompts)) == 0, "no digit of a number was lost"
    assert probe.read(tmp_path / "elsewhere", decoder.vocabulary, decoder.context) is None


def test_a_model_of_transformers_is_proven_too(tmp_path):
    folder = make_model(tmp_path, "gpt2")
    decoder, again = (Decoder.load(folder, CPU, torch.float32, None) for _ in range(2))
    answered = decoder.next_logprobs(PROMPTS)
    kept = stored(answered, torch.float32)
    kept = msgspec.structs.replace(kept, environment=Environment.of(decoder))
    assert prove("v1", kept, again).startswith(("exact", "within "))
    assert "TransformersNetwork" in kept.environment.kernels


# --- the bundled model, in the format that it is served in ---------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(converted_models) -> ModelFolder:
    return resolve("smollm2", Workspace(converted_models.parent))


def young(folder: ModelFolder, strength: float, seed: int = 1) -> Adapter:
    """A small random update of all linear layers."""
    generator = torch.Generator().manual_seed(seed)
    weights = Backbone(folder, CPU, torch.bfloat16).network.adaptable(0)
    pairs = {}
    for name, (out, into) in weights.items():
        down = torch.randn(16, into, generator=generator) / into**0.5
        pairs[name] = (down, strength * torch.randn(out, 16, generator=generator))
    return Adapter(pairs, 2.0)


@pytest.mark.model
def test_the_bundled_model_is_proven_in_bf16(smollm2, tmp_path):
    candidate = young(smollm2, 0.001)
    path = candidate.write(tmp_path, "smollm2")
    backbone = Backbone(smollm2, CPU, torch.bfloat16)
    judged = take(backbone.decoder(candidate), backbone.tokenizer)
    engine = Decoder.load(smollm2.path, CPU, torch.bfloat16, None, four_bit=True)
    served = engine.with_version(path)
    assert judged is not None
    assert prove("v1", judged, served, engine).startswith(("exact", "within "))
    taken = take(served, backbone.tokenizer)
    assert taken is not None
    assert prove("v1", taken, engine.with_version(path), engine) == "exact"
    with pytest.raises(WorkbenchError, match="when it was published"):
        prove("v1", taken, engine, engine)
    halved = Adapter(candidate.pairs, candidate.scale / 2)
    with pytest.raises(WorkbenchError, match="when it was published"):
        prove("v1", taken, engine.with_version(halved), engine)
    in_fp32 = Decoder.load(smollm2.path, CPU, torch.float32, None).with_version(path)
    assert prove("v1", taken, in_fp32).startswith("within ")
