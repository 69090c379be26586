"""Models that compare images with texts, against transformers' own scores of the same images and texts."""

from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from ablation_core import ablate, bundled, load_data, load_model
from ablation_core.errors import ModelError
from ablation_core.loading.folders import split_classes
from ablation_core.loading.zero_shot import ClassTexts
from tests import tiny

TOWERS = {
    "text_config": tiny.TEXT | tiny.IDS | tiny.WIDE | {"vocab_size": 4096, "projection_dim": 16},
    "vision_config": {name: value for name, value in tiny.IMAGE.items() if name != "num_labels"}
    | {"projection_dim": 16},
}
MODELS = {
    "clip": ("CLIPModel", transformers.CLIPConfig(**TOWERS, projection_dim=16)),
    "siglip": ("SiglipModel", transformers.SiglipConfig(**TOWERS)),
}


def saved(folder: Path, name: str) -> str:
    class_name, config = MODELS[name]
    torch.manual_seed(0)
    module = getattr(transformers, class_name)(config)
    for weight in module.parameters():
        if weight.ndim:
            weight.data.add_(0.2 * torch.randn_like(weight))
    module.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(bundled.FOLDER / "roberta-mini").save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"height": 16, "width": 16}, do_center_crop=False, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    return str(folder)


def pictures(folder: Path) -> str:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.effect_noise((20 + number, 24), 80).convert("RGB").save(folder / name / f"{number}.png")
    return f"images:{folder}"


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_images_by_class_texts(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / name, name)
    model = load_model(f"{folder}#cat,dog")
    assert (model.modality, model.labels, model.shape.heads) == ("vision", ("cat", "dog"), (4, 4, 4))
    data = load_data(pictures(tmp_path / "pictures"), model, predictions=4)
    whole = transformers.AutoModelForZeroShotImageClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["This is a photo of cat.", "This is a photo of dog."]
    words = {"padding": "max_length", "max_length": 64} if name == "siglip" else {"padding": True}
    given = tokenizer(texts, return_tensors="pt", return_token_type_ids=False, **words)
    place = whole.vision_model.encoder.layers[1].self_attn.out_proj.weight

    def loss() -> float:
        total = 0.0
        for batch in data:
            logits = whole(**given, pixel_values=batch.inputs["pixel_values"]).logits_per_image
            total += float(torch.nn.functional.cross_entropy(logits.double(), batch.targets, reduction="sum"))
        return total / 4

    got = ablate(model, data, "1.2", "zero")
    assert got.baseline["loss"] == pytest.approx(loss(), abs=1e-5)
    place[:, 16:24] = 0
    assert got.results[0].performance["loss"] == pytest.approx(loss(), abs=1e-5)
    other = load_model(f"{folder}#a drawing of a {{}}:cat,dog")
    assert other.fingerprint != model.fingerprint


def test_it_is_taken_from_memory_too(tmp_path: Path) -> None:
    folder = saved(tmp_path, "clip")
    module = transformers.CLIPModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = load_model(module, tokenizer=tokenizer, image_processor=processor, labels=["cat", "dog"])
    pixels = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(model.module(pixels), load_model(f"{folder}#cat,dog").module(pixels))
    assert len(module.config.id2label) == 2 and "cat" not in module.config.id2label.values()


def test_class_texts_that_cannot_be_used(tmp_path: Path) -> None:
    folder = saved(tmp_path, "clip")
    with pytest.raises(ModelError, match=r"name some behind it, as in .*#cat,dog"):
        load_model(folder)
    with pytest.raises(ModelError, match="At least two different"):
        load_model(f"{folder}#cat")
    with pytest.raises(ModelError, match="has classes or tokens of its own"):
        load_model("opt-mini#cat,dog")
    with pytest.raises(ModelError, match="has classes or tokens of its own"):
        load_model("vit-mini#cat,dog")


def test_a_folder_s_name_may_hold_the_sign_before_class_texts(tmp_path: Path) -> None:
    folder = tmp_path / "clip#2"
    folder.mkdir()
    assert split_classes(f"{folder}#cat,dog #2") == (str(folder), "cat,dog #2")
    assert split_classes(str(folder)) == (str(folder), None)
    assert split_classes("owner/clip@main#cat,dog") == ("owner/clip@main", "cat,dog")


def test_a_template_of_one_s_own() -> None:
    assert ClassTexts.parse("cat, dog").texts == ("This is a photo of cat.", "This is a photo of dog.")
    assert ClassTexts.parse("a drawing of a {}:cat,dog").texts == ("a drawing of a cat", "a drawing of a dog")


@torch.inference_mode()
def test_siglip_2_reads_whole_images(tmp_path: Path) -> None:
    """Square images, as its own processor and forward have them."""
    vision = {name: value for name, value in TOWERS["vision_config"].items() if name != "image_size"}
    config = transformers.Siglip2Config(vision_config=vision | {"num_patches": 16}, num_labels=2)
    torch.manual_seed(0)
    module = transformers.Siglip2ForImageClassification(config).eval()
    module.save_pretrained(tmp_path / "model")
    processor = transformers.Siglip2ImageProcessor(patch_size=4, max_num_patches=16)
    processor.save_pretrained(tmp_path / "model")
    model = load_model(str(tmp_path / "model"))
    assert model.shape.heads == (4, 4, 4)
    images = [Image.effect_noise((24, 24), 60 + number).convert("RGB") for number in range(3)]
    got = model.module(torch.stack([model.to_pixels(image) for image in images])).logits
    torch.testing.assert_close(got, module(**processor(images, return_tensors="pt")).logits, rtol=1e-4, atol=1e-5)
