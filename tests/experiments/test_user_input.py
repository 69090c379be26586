"""A person's own input, against plain hooked forwards and a naive loop; and uploads that must be refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ablation_core import load_statistics
from ablation_core.activations.files import find_statistics
from ablation_core.data.positions import Positions
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.data.user_input import UserInput, image, prompt, read_image
from ablation_core.errors import DataError
from ablation_core.experiments.spec import AblationSpec
from ablation_core.experiments.user_input import UserInputRun
from ablation_core.methods.registry import METHODS, constant_values
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection

SELECT = "1.2 3.0:1-9 4.*"
NAMES = ("zero", "mean", "peak", "resample-dataset")


def spec(model: LoadedModel, select: str = SELECT, skip_first: int = 0) -> AblationSpec:
    return AblationSpec(
        Selection.parse(select, model.shape),
        tuple(METHODS[name] for name in NAMES),
        positions=Positions.after(skip_first),
    )


def statistics_of(model: LoadedModel):
    return load_statistics(find_statistics(model, DEFAULT_DATA[model.modality]).path, model)


def plain_logits(
    model: LoadedModel, inputs: dict, select: str, values: dict[int, torch.Tensor] | None, skip_first: int = 0
):
    """The whole model run once with hooks of our own; values: layer → (positions or 1, width) put in place."""
    hooks = []
    selection = Selection.parse(select, model.shape)
    for layer in selection.layers if values is not None else ():

        def hook(_module, arguments, layer=layer):
            changed = arguments[0].clone()
            mask = torch.from_numpy(selection.mask(layer))
            for position in range(skip_first, changed.shape[1]):
                row = values[layer][min(position, len(values[layer]) - 1)]
                changed[:, position, mask] = row[mask]
            return (changed,)

        hooks.append(model.projections[layer].register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            result = model.module(**inputs)
    finally:
        for one in hooks:
            one.remove()
    return result if isinstance(result, torch.Tensor) else result.logits


def values_of(model: LoadedModel, name: str, own: UserInput) -> dict[int, torch.Tensor]:
    """What a method puts in place, computed here anew."""
    selection = Selection.parse(SELECT, model.shape)
    if METHODS[name].constant:
        values = constant_values(METHODS[name], statistics_of(model), selection, 100)
        return {layer: torch.from_numpy(values[layer].reshape(1, -1)) for layer in selection.layers}
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        model.projections[layer].register_forward_pre_hook(
            lambda _module, arguments, layer=layer: seen.update({layer: arguments[0][0].clone()})
        )
        for layer in selection.layers
    ]
    with torch.no_grad():
        model.module(**METHODS[name].source(model, own.data, [0], 0).inputs)
    for one in hooks:
        one.remove()
    return seen


def own_of(model: LoadedModel) -> UserInput:
    if model.modality == "vision":
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8))
        content = io.BytesIO()
        picture.save(content, "PNG")
        return image(model, content.getvalue(), "fashion-mnist")
    text = "The ___ statement is used to ___ a function." if model.modality == "masked" else "The return statement"
    return prompt(model, text, "python-docs", new_tokens=6)


@pytest.mark.parametrize("skip_first", [0, 1])
def test_the_answer_is_that_of_a_plain_forward(bundled_model: LoadedModel, skip_first: int) -> None:
    model, own = bundled_model, own_of(bundled_model)
    answer = UserInputRun(model, own, spec(model, skip_first=skip_first), statistics_of(model)).answer()
    for name in (None, *NAMES):
        values = None if name is None else values_of(model, name, own)
        logits = plain_logits(model, own.asked.inputs, SELECT, values, skip_first)
        asked = own.asked.targets != -100
        expected = logits[asked].softmax(-1).numpy()
        found = answer.before if name is None else answer.after[name]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-6)
        if name is not None:
            assert abs(found - answer.before).max() > 1e-4, "the ablation does something"


def test_the_continuation_is_that_of_a_naive_loop(opt_mini: LoadedModel) -> None:
    own = own_of(opt_mini)
    run = UserInputRun(opt_mini, own, spec(opt_mini), statistics_of(opt_mini))
    *_, written = run.continuations(6)
    assert set(written) == {"clean", *NAMES}
    for name, tokens in written.items():
        ids = own.asked.inputs["input_ids"].clone()
        values = None if name == "clean" else values_of(opt_mini, name, own)
        for _ in range(6):
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            following = plain_logits(opt_mini, inputs, SELECT, values)[0, -1].argmax()
            ids = torch.cat([ids, following.reshape(1, 1)], 1)
        assert tokens == ids[0, -6:].tolist(), name
    assert len({tuple(tokens) for tokens in written.values()}) > 1, "some ablation changes the text"


def test_a_text_that_ends_is_written_no_further(opt_mini: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    run = UserInputRun(opt_mini, own_of(opt_mini), spec(opt_mini, ""), statistics_of(opt_mini))
    *_, written = run.continuations(6)
    third = written["clean"][2]
    monkeypatch.setattr(run, "_ends", lambda: {third})
    *_, shorter = run.continuations(6)
    assert shorter["clean"] == written["clean"][: written["clean"].index(third)]


def test_a_prompts_own_tokens_are_scored(opt_mini: LoadedModel) -> None:
    own = own_of(opt_mini)
    before, after = UserInputRun(opt_mini, own, spec(opt_mini), statistics_of(opt_mini)).losses()
    ids = own.asked.inputs["input_ids"]
    for found, values in ((before, None), (after["mean"], values_of(opt_mini, "mean", own))):
        log_probs = plain_logits(opt_mini, own.asked.inputs, SELECT, values)[0].log_softmax(-1)
        expected = [-float(log_probs[place, ids[0, place + 1]]) for place in range(ids.shape[1] - 1)]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_empty_selection_changes_nothing(bundled_model: LoadedModel) -> None:
    answer = UserInputRun(
        bundled_model, own_of(bundled_model), spec(bundled_model, ""), statistics_of(bundled_model)
    ).answer()
    for after in answer.after.values():
        assert (after == answer.before).all()


@pytest.mark.parametrize(
    ("text", "words"), [("", "Nothing is written"), (" \n ", "Nothing is written"), ("word " * 400, "tokens; opt-mini")]
)
def test_unusable_prompts_get_a_sentence(opt_mini: LoadedModel, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        prompt(opt_mini, text, "python-docs")


def test_a_masked_model_needs_a_gap() -> None:
    from ablation_core import load_model

    model = load_model("roberta-mini")
    with pytest.raises(DataError, match="three underscores"):
        prompt(model, "nothing to fill in", "python-docs")
    for gap in ("___", "[MASK]", "<mask>"):
        assert int((prompt(model, f"a {gap} statement", "python-docs").asked.targets != -100).sum()) == 1


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


GREY = Image.new("L", (20, 10), 100)
REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"no image at all", "cannot be read as an image"),
    "truncated": (encoded(Image.effect_noise((200, 200), 50), "JPEG")[:2000], "damaged or cut off"),
    "animated": (encoded(GREY, "GIF", save_all=True, append_images=[Image.new("L", (20, 10), 9)]), "animated"),
    "huge": (encoded(Image.new("1", (6000, 5000))), "at most 25 million"),
    "heavy": (b"\x89PNG" + bytes(20_000_001), "MB"),
    "vector": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as an image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_uploads_that_are_refused_get_a_sentence(name: str) -> None:
    content, words = REFUSED[name]
    with pytest.raises(DataError, match=words):
        read_image(content)


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(encoded(GREY))
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height in the header
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match=r"million|cannot be read"):
        read_image(bytes(content))


def test_deep_and_printed_images_are_converted_and_said_so() -> None:
    deep = Image.fromarray((np.arange(200, dtype=np.uint16) * 300).reshape(10, 20))
    picture, notes = read_image(encoded(deep))
    assert picture.mode == "L" and "8 bits" in notes[0]
    assert np.asarray(picture)[-1, -1] == round(199 * 300 * 255 / 65535)
    picture, notes = read_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert picture.mode == "RGB" and "CMYK" in notes[0]
    red, green, _ = picture.getpixel((4, 4))
    assert red > 200 > 60 > green
    picture, notes = read_image(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))
    assert picture.getpixel((0, 0)) == (255, 255, 255) and "transparent" in notes[0]
