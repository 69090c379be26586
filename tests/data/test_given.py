"""Data in memory: texts, ids, images, loaders and data sets give what is in them, in windows that can be written by hand."""

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

from ablation_core import ablate, load_data, load_model
from ablation_core.data.dataset import IGNORED
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel


@pytest.fixture(scope="module")
def roberta_mini() -> LoadedModel:
    return load_model("roberta-mini")


def whole_loss(model: LoadedModel, ids: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    with torch.no_grad():
        logits = model.module(input_ids=ids, attention_mask=mask).logits.double()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED).item()


def test_a_tensor_of_ids_is_scored_as_it_is(opt_mini: LoadedModel) -> None:
    ids = torch.randint(5, 4096, (9, 17), generator=torch.Generator().manual_seed(0))
    data = load_data(ids, opt_mini)
    (one, other) = list(data)
    assert torch.equal(torch.cat([one.inputs["input_ids"], other.inputs["input_ids"]]), ids)
    assert data.predictions == 9 * 16 and data.split == "all" and data.documents is None
    targets = torch.cat([ids[:, 1:], torch.full((9, 1), IGNORED)], 1)
    wanted = whole_loss(opt_mini, ids, targets)
    result = ablate(opt_mini, data, "0.0", "zero")
    assert result.baseline.loss == pytest.approx(wanted, abs=1e-5)
    assert result.to_dict()["provenance"]["windows"] == "given"
    assert [load_data(ids, opt_mini, split=split).pool for split in ("evaluation", "statistics")] == [5, 4]


def test_a_run_of_ids_is_cut_and_rows_of_several_lengths_are_padded(opt_mini: LoadedModel) -> None:
    run = torch.arange(10, 75)
    assert next(iter(load_data(run, opt_mini, seq_len=32))).inputs["input_ids"].tolist() == [
        list(range(10, 42)),
        list(range(42, 74)),
    ]
    rows = [[10, 11, 12], [20, 21, 22, 23, 24]]
    (batch,) = list(load_data(rows, opt_mini))
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch.targets.tolist() == [[11, 12, IGNORED, IGNORED, IGNORED], [21, 22, 23, 24, IGNORED]]


def test_padding_in_a_tensor_is_neither_attended_to_nor_scored_on_whichever_side(opt_mini: LoadedModel) -> None:
    pad = opt_mini.tokenizer.pad_token_id
    right = torch.tensor([[2, 10, 11, 12, pad, pad], [2, 20, 21, 22, 23, 24]])
    left = torch.tensor([[pad, pad, 2, 10, 11, 12], [2, 20, 21, 22, 23, 24]])
    one, other = load_data(right, opt_mini), load_data(left, opt_mini)
    assert one.fingerprint == other.fingerprint and one.predictions == 8
    (batch,) = list(one)
    assert batch.inputs["attention_mask"][0].tolist() == [1, 1, 1, 1, 0, 0]


def test_a_tokenizers_own_output_with_mask_and_labels(opt_mini: LoadedModel, roberta_mini: LoadedModel) -> None:
    encoded = opt_mini.tokenizer(["A text of some words.", "Short."], padding=True, return_tensors="pt")
    data = load_data(encoded, opt_mini)
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    targets = torch.where(mask[:, 1:] == 1, ids[:, 1:], IGNORED)
    wanted = whole_loss(opt_mini, ids, torch.cat([targets, torch.full((2, 1), IGNORED)], 1), mask)
    assert ablate(opt_mini, data, "0.0", "zero").baseline.loss == pytest.approx(wanted, abs=1e-5)
    hidden = roberta_mini.tokenizer("The cat sat on the mat.", return_tensors="pt").input_ids
    labels = torch.full_like(hidden, IGNORED)
    labels[0, 3] = hidden[0, 3]
    hidden[0, 3] = roberta_mini.tokenizer.mask_token_id
    data = load_data({"input_ids": hidden, "labels": labels}, roberta_mini)
    assert data.predictions == 1
    assert ablate(roberta_mini, data, "0.0", "zero").baseline.loss == pytest.approx(
        whole_loss(roberta_mini, hidden, labels), abs=1e-5
    )


def test_texts_are_packed_or_each_by_itself(opt_mini: LoadedModel) -> None:
    texts = [f"Sentence number {number} of this list." for number in range(30)]
    packed = load_data(texts, opt_mini, seq_len=32)
    ids = [token for batch in packed for row in batch.inputs["input_ids"].tolist() for token in row[1:]]
    assert "".join(text + "\n\n" for text in texts).startswith(opt_mini.tokenizer.decode(ids))
    alone = load_data(texts, opt_mini, documents=True)
    assert alone.sequences == 30 and alone.documents
    short = load_data(texts[:2], opt_mini)
    assert short.documents and short.sequences == 2 and "shorter than one window" in short.notes[0]


def test_images_with_classes_by_number_and_name(vit_mini: LoadedModel) -> None:
    from ablation_core.bundled import fashion_mnist

    pixels, labels = fashion_mnist.sample()
    chosen = [(Image.fromarray(pixels[number]), int(labels[number])) for number in range(12)]
    data = load_data(chosen, vit_mini)
    assert data.predictions == 12
    with torch.no_grad():
        inputs = torch.stack([vit_mini.to_pixels(image) for image, _ in chosen])
        logits = vit_mini.module(inputs).double()
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor([label for _, label in chosen])).item()
    for given in (
        chosen,
        [(np.asarray(image), vit_mini.labels[label]) for image, label in chosen],
        [(pixel, label) for pixel, (_, label) in zip(inputs, chosen, strict=True)],
        torch.utils.data.DataLoader(list(zip(inputs, [label for _, label in chosen], strict=True)), batch_size=5),
        (inputs, torch.tensor([label for _, label in chosen])),
        [{"image": image, "label": label} for image, label in chosen],
    ):
        result = ablate(vit_mini, load_data(given, vit_mini), "0.0", "zero")
        assert result.baseline.loss == pytest.approx(wanted, abs=1e-5)


def test_a_loader_that_shuffles_is_read_once_and_only_as_far_as_needed(opt_mini: LoadedModel) -> None:
    read = []

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, number: int) -> torch.Tensor:
            read.append(number)
            return torch.arange(number, number + 20) + 10

    data = load_data(torch.utils.data.DataLoader(Rows(), batch_size=4, shuffle=True), opt_mini, predictions=100)
    first, second = (torch.cat([batch.inputs["input_ids"] for batch in data]) for _ in range(2))
    assert torch.equal(first, second)
    assert len(read) <= 12


def test_a_data_set_of_the_datasets_library(opt_mini: LoadedModel) -> None:
    import datasets

    texts = [f"Sentence number {number} of this list." for number in range(30)]
    wanted = load_data(texts, opt_mini, seq_len=32).fingerprint
    whole = datasets.Dataset.from_dict({"text": texts, "id": list(range(30))})
    assert load_data(whole, opt_mini, seq_len=32).fingerprint == wanted
    assert load_data(whole.to_iterable_dataset(), opt_mini, seq_len=32).fingerprint == wanted
    with pytest.raises(DataError, match="give one of them"):
        load_data(datasets.DatasetDict({"train": whole}), opt_mini)
    with pytest.raises(DataError, match="columns id"):
        load_data(whole.remove_columns("text").add_column("other", [0] * 30), opt_mini)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "empty"),
        ([""], "nothing to predict"),
        (7, "cannot be an int"),
        (None, "cannot be a NoneType"),
        (torch.rand(3, 4), "whole numbers"),
        (torch.zeros(2, 3, 4, dtype=torch.long), "two dimensions"),
        (torch.tensor([[5, 4096]]), r"knows 4,096"),
        (torch.tensor([[5, -3]]), "0 or more"),
        (["a text", 3], "Row 1 of the data given is an int"),
        ([(Image.new("L", (4, 4)), 0)], "reads text"),
        ([object()], "an object"),
        (torch.full((1, 300), 7), "at most 256"),
    ],
)
def test_what_cannot_be_used_gets_a_sentence(opt_mini: LoadedModel, given: object, words: str) -> None:
    from ablation_core.errors import AblationError

    with pytest.raises(AblationError, match=words):
        load_data(given, opt_mini)


def test_images_that_cannot_be_used_get_a_sentence(vit_mini: LoadedModel) -> None:
    image = Image.new("L", (28, 28))
    for given, words in (
        ([(image, 10)], "no class 10"),
        ([(image, "boat")], "no class 'boat'"),
        ([image], "without its class"),
        (["a text"], "reads images"),
        ([(torch.rand(1, 28, 28), 0), (torch.rand(1, 14, 14), 0)], "several shapes"),
    ):
        with pytest.raises(DataError, match=words):
            ablate(vit_mini, load_data(given, vit_mini), "0.0", "zero")


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (28, 28, 3)])
def test_pixels_that_were_prepared_for_another_model(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    config = tf.ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=28, patch_size=7
    )
    model = load_model(tf.ViTForImageClassification(config).eval())
    assert load_data([(torch.randn(3, 28, 28), 0)], model).predictions == 1
    with pytest.raises(DataError, match="cannot read pixels of the shape"):
        load_data([(torch.randn(*shape), 0)], model)


def test_two_classes_of_one_name_are_said() -> None:
    from ablation_core.data.images import match_class

    labels = ("crane", "maillot", "crane", "Crab", "crab")
    with pytest.raises(DataError, match="2 classes called 'crane'"):
        match_class("crane", labels)
    with pytest.raises(DataError, match="case alone"):
        match_class("CRAB", labels)
    assert match_class("Crab", labels) == 3 and match_class("crab", labels) == 4
    assert match_class("2", labels) == 2  # where names are not clear, numbers are


def test_data_of_another_tokenizer_and_a_selection_of_another_shape_are_refused(
    opt_mini: LoadedModel, roberta_mini: LoadedModel, vit_mini: LoadedModel
) -> None:
    from ablation_core import Selection, compute_statistics
    from ablation_core.errors import SelectionError

    data = load_data("python-docs", roberta_mini, predictions=50, seq_len=32)
    with pytest.raises(DataError, match="prepared for another model"):
        ablate(opt_mini, data, "0.0", "zero")
    with pytest.raises(DataError, match="prepared for another model"):
        compute_statistics(opt_mini, data)
    own = load_data("python-docs", opt_mini, predictions=50, seq_len=32)
    with pytest.raises(SelectionError, match="made for a model"):
        ablate(opt_mini, own, Selection.parse("5.5", vit_mini.shape), "zero")
    by_pairs = ablate(opt_mini, own, [(3, 2), (4, 1, 7)], "zero")
    assert by_pairs.select == "3.2 4.1:7"
    for wrong in ([(3.5, 2)], [3, 2, 1], 7, [("a", "b")], [(9, 9)]):
        with pytest.raises(SelectionError):
            ablate(opt_mini, own, wrong, "zero")
