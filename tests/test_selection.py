"""Selections: what their text form means, what it prints, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation_core.errors import SelectionError
from ablation_core.selection import ModelShape, Selection

SHAPE = ModelShape(heads=(6, 6, 6, 6), head_dim=32)
RAGGED = ModelShape(heads=(2, 3, 1), head_dim=4)

Neuron = tuple[int, int, int]


def every(shape: ModelShape) -> list[Neuron]:
    return [
        (layer, head, n)
        for layer, heads in enumerate(shape.heads)
        for head in range(heads)
        for n in range(shape.head_dim)
    ]


def neurons_of(selection: Selection) -> set[Neuron]:
    return {(layer, head, neuron) for (layer, head), neurons in selection.chosen for neuron in neurons}


def spelled(neurons: set[Neuron]) -> str:
    return " ".join(f"{layer}.{head}:{neuron}" for layer, head, neuron in neurons)


def whole_head(layer: int, number: int, shape: ModelShape) -> set[Neuron]:
    return {(layer, number, neuron) for neuron in range(shape.head_dim)}


shapes = st.builds(
    ModelShape, heads=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), head_dim=st.integers(1, 6)
)


@st.composite
def shaped_sets(draw, sets: int = 1) -> tuple:
    """A shape and sets of its neurons, among them whole heads and whole layers."""
    shape = draw(shapes)
    drawn = []
    for _ in range(sets):
        neurons = draw(st.sets(st.sampled_from(every(shape))))
        for layer in draw(st.sets(st.integers(0, shape.layers - 1))):
            count = draw(st.integers(0, shape.heads[layer]))
            neurons = neurons.union(*(whole_head(layer, number, shape) for number in range(count)))
        drawn.append(neurons)
    return shape, *drawn


def test_shape_counts_its_layers_and_neurons():
    assert (RAGGED.layers, RAGGED.neurons) == (3, 24)
    assert (SHAPE.layers, SHAPE.neurons) == (4, 768)


def test_shape_in_words():
    assert str(SHAPE) == "4 layers of 6 heads of 32 neurons"
    assert str(RAGGED) == "3 layers of 1 to 3 heads of 4 neurons"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        (" \n\t ", set()),
        ("1.2", whole_head(1, 2, RAGGED)),
        ("0.*", whole_head(0, 0, RAGGED) | whole_head(0, 1, RAGGED)),
        ("*.0", whole_head(0, 0, RAGGED) | whole_head(1, 0, RAGGED) | whole_head(2, 0, RAGGED)),
        ("*.*", set(every(RAGGED))),
        ("*.*:3", {(0, 0, 3), (0, 1, 3), (1, 0, 3), (1, 1, 3), (1, 2, 3), (2, 0, 3)}),
        ("1.2:0-2", {(1, 2, 0), (1, 2, 1), (1, 2, 2)}),
        ("1.2:0,3", {(1, 2, 0), (1, 2, 3)}),
        ("1.2:3,0-1,1-1", {(1, 2, 0), (1, 2, 1), (1, 2, 3)}),
        ("2.0:1 0.1:2", {(2, 0, 1), (0, 1, 2)}),
        ("0.1:2\n0.1:2\t0.1:03", {(0, 1, 2), (0, 1, 3)}),
    ],
)
def test_text_names_exactly_these_neurons(text, expected):
    selection = Selection.parse(text, RAGGED)
    assert neurons_of(selection) == expected
    assert len(selection) == len(expected)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("3.2:4-6,5 3.2:7 0.1", "0.1 3.2:4-7"),
        ("", ""),
        ("3.2:0-31", "3.2"),
        ("3.5 3.4 3.3 3.2 3.1 3.0", "3.*"),
        ("0.* 1.* 2.* 3.*", "*.*"),
        ("*.*:0-15 *.*:16-31", "*.*"),
        ("1.0:9,1,3,2,7,8,31", "1.0:1-3,7-9,31"),
        ("2.1 2.0 1.*", "1.* 2.0 2.1"),
    ],
)
def test_printed_form(text, printed):
    assert str(Selection.parse(text, SHAPE)) == printed


@given(shaped_sets())
@settings(deadline=None)
def test_text_form_reads_back_to_an_equal_selection(drawn):
    shape, neurons = drawn
    selection = Selection.parse(spelled(neurons), shape)
    again = Selection.parse(str(selection), shape)
    assert again == selection
    assert hash(again) == hash(selection)
    assert neurons_of(again) == neurons


@given(shaped_sets(), st.randoms())
@settings(deadline=None)
def test_order_and_repetition_of_terms_do_not_matter(drawn, random):
    shape, neurons = drawn
    terms = spelled(neurons).split() * 2
    random.shuffle(terms)
    assert Selection.parse(" ".join(terms), shape) == Selection.parse(spelled(neurons), shape)


@given(shaped_sets())
@settings(deadline=None)
def test_masks_hold_exactly_the_selected_neurons(drawn):
    shape, neurons = drawn
    selection = Selection.parse(spelled(neurons), shape)
    for layer, heads in enumerate(shape.heads):
        expected = [(layer, head, n) in neurons for head, n in itertools.product(range(heads), range(shape.head_dim))]
        mask = selection.mask(layer)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected)


@given(shaped_sets())
@settings(deadline=None)
def test_masks_read_back_to_an_equal_selection(drawn):
    shape, neurons = drawn
    masks = [
        np.array([(layer, head, n) in neurons for head, n in itertools.product(range(heads), range(shape.head_dim))])
        for layer, heads in enumerate(shape.heads)
    ]
    assert Selection.of_masks(masks, shape) == Selection.parse(spelled(neurons), shape)


def test_a_mask_counts_neurons_head_after_head():
    masks = [np.zeros(8, dtype=bool), np.zeros(12, dtype=bool), np.zeros(4, dtype=bool)]
    masks[0][[0, 5]] = masks[1][[3, 4, 11]] = True
    selection = Selection.of_masks(masks, RAGGED)
    assert str(selection) == "0.0:0 0.1:1 1.0:3 1.1:0 1.2:3"
    assert selection.shape == RAGGED


@given(shaped_sets())
@settings(deadline=None)
def test_heads_and_layers_are_those_with_a_selected_neuron(drawn):
    shape, neurons = drawn
    selection = Selection.parse(spelled(neurons), shape)
    assert selection.heads == tuple(sorted({(layer, head) for layer, head, _ in neurons}))
    assert selection.layers == tuple(sorted({layer for layer, _, _ in neurons}))


@given(shaped_sets(sets=2))
@settings(deadline=None)
def test_toggling_removes_what_is_wholly_selected_and_else_adds(drawn):
    shape, mine, other = drawn
    toggled = Selection.parse(spelled(mine), shape).toggled(Selection.parse(spelled(other), shape))
    expected = mine - other if other <= mine else mine | other
    assert neurons_of(toggled) == expected
    assert toggled == Selection.parse(spelled(expected), shape)


def test_toggling_a_half_selected_head_completes_it_and_again_clears_it():
    head, half = Selection.parse("1.2", SHAPE), Selection.parse("1.2:0-15 3.0:1", SHAPE)
    full = half.toggled(head)
    assert str(full) == "1.2 3.0:1"
    assert str(full.toggled(head)) == "3.0:1"


def test_of_heads_selects_whole_heads():
    selection = Selection.of_heads([(2, 0), (0, 1), (2, 0)], RAGGED)
    assert neurons_of(selection) == whole_head(2, 0, RAGGED) | whole_head(0, 1, RAGGED)
    assert Selection.of_heads([], RAGGED) == Selection(RAGGED)


def test_of_heads_refuses_a_head_outside_the_model():
    with pytest.raises(SelectionError, match=r"2\.1"):
        Selection.of_heads([(0, 0), (2, 1)], RAGGED)


def test_selections_of_other_models_are_not_equal():
    assert Selection.parse("0.0:1", SHAPE) != Selection.parse("0.0:1", RAGGED)


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("3.0", ["no layer 3", "0 to 2"]),
        ("3.*", ["no layer 3", "0 to 2"]),
        ("0.2", ["no head 2", "0 to 1"]),
        ("*.1", ["no head 1", "0 to 0"]),  # the last layer has one head
        ("1.2:4", ["no neuron 4", "0 to 3"]),
        ("1.2:0-4", ["no neuron 4", "0 to 3"]),
        ("1.2:0,1,9", ["no neuron 9", "0 to 3"]),
        ("*.*:4", ["no neuron 4", "0 to 3"]),
    ],
)
def test_outside_the_model(term, words):
    with pytest.raises(SelectionError) as error:
        Selection.parse(f"0.0 {term} 1.1", RAGGED)
    assert all(word in str(error.value) for word in [term, *words])


def test_backwards_range_is_refused_with_the_right_one():
    with pytest.raises(SelectionError) as error:
        Selection.parse("1.2:0,3-1", RAGGED)
    assert "1.2:0,3-1" in str(error.value)
    assert "3-1" in str(error.value).replace("1.2:0,3-1", "")
    assert "1-3" in str(error.value)


@pytest.mark.parametrize(
    "term",
    [
        "junk", "1", "1.", ".1", "1.2.0", "-1.0", "1.-1", "**", "*", "1:2", "1.2:", "1.2:*", "1.2:a", "1.2:,", "1.2:1,",
        "1.2:,1", "1.2:-1", "1.2:1-", "1.2:1--2", "1.2:1-2-3", "1.2:1;2", "1,2", "1.2:1.2", "0x1.0", "1e0.0", "+1.0",
        "1_0.0", "1.2:0:1", "'1.2'", "<b>", "\x00", "1.2\x00",
        "١.٢", "1.٢", "1.2:٣", "².0", "1.2:²", "１.２", "1.2:0–3", "1․2", "Ⅰ.0",
        "9" * 10 + ".0", "0." + "9" * 10, "0.0:" + "9" * 10, "0.0:0-" + "9" * 400, "9" * 5000 + ".0",
        "999999999.0", "0.999999999", "0.0:999999999", "0.0:0-999999999",
    ],
)  # fmt: skip
def test_malformed_terms_are_refused_by_name(term):
    with pytest.raises(SelectionError) as error:
        Selection.parse(f"0.0 {term}", RAGGED)
    assert repr(term) in str(error.value)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("0.4,1.3", "0.4 1.3"), ("0.4; 1.3", "0.4 1.3"), ("0.4, 1.3", "0.4 1.3"), ("0.4;1.3;", "0.4 1.3"),
        ("L0H4", "0.4"), ("l3h2:0-3 L1.H0", "1.0 3.2:0-3"), ("L2H*", "2.*"), ("L0H4,L1H3", "0.4 1.3"),
        ("3.2:0-7,12", "3.2:0-7,12"), ("3.2:0,1,1.3", "1.3 3.2:0-1"), ("3.2:1, 1.3:2,4", "1.3:2,4 3.2:1"),
        ("3.*,2.*", "2.* 3.*"), ("0.4,*.*", "*.*"), ("0.4,", "0.4"),
    ],
)  # fmt: skip
def test_other_ways_to_write_a_selection_are_understood(text, plain):
    assert str(Selection.parse(text, SHAPE)) == plain


@given(st.one_of(st.text(), st.text(alphabet="0123*.:,;LlHh- \t٣²"), st.text(alphabet="01.:-,* ", max_size=8)))
@settings(deadline=None, max_examples=400)
def test_any_text_parses_or_is_refused(text):
    try:
        selection = Selection.parse(text, RAGGED)
    except SelectionError as error:
        assert any(repr(term) in str(error) for term in text.split())
    else:
        assert neurons_of(selection) <= set(every(RAGGED))
        assert Selection.parse(str(selection), RAGGED) == selection


index = st.one_of(st.just("*"), st.integers(0, 3).map(str))
part = st.one_of(
    st.integers(0, 7).map(str), st.tuples(st.integers(0, 7), st.integers(0, 7)).map("{0[0]}-{0[1]}".format)
)


@given(shapes, index, index, st.none() | st.lists(part, min_size=1, max_size=3))
@settings(deadline=None, max_examples=200)
def test_single_terms_agree_with_a_plain_reading(shape, layer, number, parts):
    """Every neuron of the model is asked whether the term names it; a term that names anything else is refused."""
    term = f"{layer}.{number}" + ("" if parts is None else ":" + ",".join(parts))
    spans = [tuple(map(int, (part.split("-") * 2)[:2])) for part in parts or []]
    layers = [at for at in range(shape.layers) if layer in ("*", str(at))]
    fits = (
        bool(layers)
        and (number == "*" or all(int(number) < shape.heads[at] for at in layers))
        and all(first <= last < shape.head_dim for first, last in spans)
    )
    if not fits:
        with pytest.raises(SelectionError):
            Selection.parse(term, shape)
        return
    expected = {
        (at, head, neuron)
        for at, head, neuron in every(shape)
        if layer in ("*", str(at))
        and number in ("*", str(head))
        and (parts is None or any(first <= neuron <= last for first, last in spans))
    }
    assert neurons_of(Selection.parse(term, shape)) == expected


def test_where_heads_are_wanted_neurons_of_one_are_refused() -> None:
    assert Selection.read_heads("1.2 0.5:0-31 1.2", SHAPE) == ((0, 5), (1, 2))
    with pytest.raises(SelectionError, match=r"of head 0\.5 only 2 of 32 neurons are named"):
        Selection.read_heads("1.2 0.5:3,4", SHAPE)
    for nothing in ("", [], " "):
        with pytest.raises(SelectionError, match="No head was named"):
            Selection.read_heads(nothing, SHAPE)
