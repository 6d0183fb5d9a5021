"""Sizes: what spellings mean, which ratio and tier is nearest, and what each size rule makes of it."""

from __future__ import annotations

import csv
from itertools import product
from math import exp, inf, log
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from imagegate.contracts.documents import ContractDocument, load_contracts
from imagegate.contracts.size_syntax import MAX_SIZE_LENGTH, Auto, Pixels, Ratio, SizeSyntaxError, Tier, parse_size
from imagegate.contracts.sizes import (
    Fitted,
    FlexibleRule,
    ListRule,
    NoSizeRule,
    RatioRule,
    RatioTierRule,
    Wanted,
    log_ratio,
    nearest_ratio,
    nearest_tier,
    tier_of_area,
)

DATA = Path(__file__).parent.parent / "data"
CORNERS = list(csv.DictReader((DATA / "sizes_corner.csv").read_text("utf-8").splitlines()))
PUBLISHED = list(csv.DictReader((DATA / "sizes_published.csv").read_text("utf-8").splitlines()))

GEMINI = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
TOAPIS = ("1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "2:1", "1:2", "21:9", "9:21")
WIDE = ("16:9", "9:16", "2:1", "1:2", "21:9", "9:21")
VOCABULARIES = {
    "gemini10": GEMINI,
    "gemini14": (*GEMINI, "1:4", "4:1", "1:8", "8:1"),
    "xai13": ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "2:1", "1:2", "19.5:9", "9:19.5", "20:9", "9:20"),
    "stability9": ("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"),
    "ideogram15": (
        "1:1",
        "16:9",
        "9:16",
        "10:16",
        "16:10",
        "2:3",
        "3:2",
        "3:4",
        "4:3",
        "4:5",
        "5:4",
        "1:2",
        "2:1",
        "1:3",
        "3:1",
    ),
    "toapis13": TOAPIS,
    "openai3": ("1:1", "3:2", "2:3"),
}
SYMMETRIC = ("xai13", "stability9", "ideogram15", "toapis13", "openai3")
GPT_IMAGE_2 = load_contracts(ContractDocument(models={"m": {"family": "gpt-image-2"}}))["m"].size

EDGES = st.integers(1, 20_000)


def flipped(word: str) -> str:
    """The portrait twin of a landscape ratio or size, and the other way round."""
    for separator in ":x":
        if separator in word:
            first, second = word.split(separator)
            return f"{second}{separator}{first}"
    return word


def pixels(width: int, height: int) -> Wanted:
    return Wanted(ratio=Ratio(width, height), pixels=Pixels(width, height))


# Spellings


@pytest.mark.parametrize("text", ["auto", "AUTO", " auto ", "Auto"])
def test_auto_is_read_in_any_case(text):
    """The word `auto` leaves the choice to the model."""
    assert Auto() == parse_size(text)


@pytest.mark.parametrize(
    "text",
    ["1024x768", "1024X768", "1024*768", "1024×768", " 1024 x 768 ", "1024 ×768", "1024x768 "],
)
def test_pixels_are_read_with_any_sign_between_the_edges(text):
    """`x`, `X`, `*` and the multiplication sign mean the same, spaces mean nothing."""
    assert Pixels(1024, 768) == parse_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1024x1024", Pixels(1024, 1024)),
        ("64x1", Pixels(64, 1)),
        ("63x64", Pixels(63, 64)),
        ("999999x999999", Pixels(999_999, 999_999)),
    ],
)
def test_one_edge_of_64_makes_pixels(text, expected):
    """A size is in pixels as soon as one edge could be that of a picture."""
    assert expected == parse_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1:1", Ratio(1, 1)),
        ("16:9", Ratio(16, 9)),
        ("21:9", Ratio(21, 9)),
        ("19.5:9", Ratio(19.5, 9)),
        ("9:19.5", Ratio(9, 19.5)),
        ("2.35:1", Ratio(2.35, 1)),
        (" 16 : 9 ", Ratio(16, 9)),
    ],
)
def test_ratios_are_read_with_decimals(text, expected):
    """Two numbers around a colon are a ratio, in the client's own numbers."""
    assert expected == parse_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16x9", Ratio(16, 9)),
        ("1x1", Ratio(1, 1)),
        ("4x3", Ratio(4, 3)),
        ("9x9", Ratio(9, 9)),
        ("63x63", Ratio(63, 63)),
    ],
)
def test_edges_below_64_are_a_ratio(text, expected):
    """`16x9` is a ratio in some dialects and absurd as pixels."""
    assert expected == parse_size(text)


@pytest.mark.parametrize(
    ("text", "edge"),
    [
        ("2K", 2048),
        ("2k", 2048),
        ("4K", 4096),
        ("1.5K", 1536),
        ("0.5K", 512),
        ("512", 512),
        ("768sq", 768),
        ("512px", 512),
        (" 1K ", 1024),
    ],
)
def test_tiers_are_read_as_their_edge(text, edge):
    """A tier is known by the edge of its square."""
    assert Tier(edge) == parse_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1024",
        "1024x",
        "x1024",
        "1024xx1024",
        "1024x1024x3",
        "1024x1024px",
        "0x0",
        "0x1024",
        "1024x0",
        "-1024x1024",
        "1024x-1",
        "+1024x1024",
        "1e3x1e3",
        "1024.5x1024",
        "١٠٢٤x1024",
        "1024x１０２４",
        "1_024x1024",
        "99999999999999999999x1",
        "1:0",
        "0:1",
        "0:0",
        "0.0:1",
        ":",
        "1:",
        ":1",
        "16:9:1",
        "-16:9",
        "nan:1",
        "inf:1",
        "1e1:1",
        "0K",
        "0.0K",
        "K",
        "2KK",
        "2M",
        "513",
        "true",
        "null",
        "[1024,1024]",
        '{"width":1024,"height":1024}',
        "16/9",
        "16-9",
        "16：9",
        "ASPECT_16_9",
        "square_hd",
        "landscape_4_3",
        "bogus",
        "auto,1:1",
        "1024x1024\n",
        "\t1:1",
        "\u00a01:1",
        "1024x1024\x00",
    ],
)
def test_everything_else_is_no_size(text):
    """Text that no spelling explains is refused, and the message shows the spellings."""
    with pytest.raises(SizeSyntaxError, match="Expected WIDTHxHEIGHT, for example '1024x1024'"):
        parse_size(text)


@pytest.mark.parametrize(
    "text",
    ["1" * 10_000, "9" * 10_000 + "x1", " " * 56 + "1024x1024", "1:" + "1" * 5000],
    ids=["digits", "pixels", "spaces", "ratio"],
)
def test_long_text_is_refused_by_its_length(text):
    """The length is looked at before anything is parsed."""
    with pytest.raises(SizeSyntaxError, match=f"at most {MAX_SIZE_LENGTH} characters"):
        parse_size(text)


def test_text_of_the_longest_length_is_read():
    """64 characters are within the limit."""
    assert Pixels(1024, 1024) == parse_size("1024x1024".rjust(64))


SPELLED = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=80),
    st.text("0123456789xX*×:.kK auto-+e_px", max_size=24),
    st.from_regex(r"\A ?[0-9]{1,7} ?[xX*×:] ?[0-9]{1,7} ?\Z"),
    st.from_regex(r"\A[0-9]{0,5}(\.[0-9]{0,4})?[:kK]([0-9]{0,5}(\.[0-9]{0,4})?)?\Z"),
)


@given(SPELLED)
def test_any_text_is_a_size_or_a_syntax_error(text):
    """Reading a size raises `SizeSyntaxError` or gives positive finite numbers."""
    try:
        size = parse_size(text)
    except SizeSyntaxError:
        return
    assert all(0 < number < inf for number in size)


@given(EDGES, EDGES)
def test_pixels_are_written_as_they_are_read(width, height):
    """`str` of pixels is what OpenAI's `size` looks like."""
    assume(max(width, height) >= 64)
    assert f"{width}x{height}" == str(parse_size(f"{width}x{height}"))


@given(*[st.decimals(min_value="0.001", max_value="9999.999", places=3)] * 2)
def test_a_ratio_written_out_means_the_same(width, height):
    """`str` of a ratio is read again as that ratio."""
    ratio = parse_size(f"{width}:{height}")
    assert ratio == parse_size(str(ratio))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (Ratio(16, 9), "16:9"),
        (Ratio(19.5, 9), "19.5:9"),
        (Tier(1024), "1K"),
        (Tier(1536), "1.5K"),
        (Tier(512), "512"),
        (Auto(), "auto"),
    ],
)
def test_sizes_are_written_in_their_usual_form(size, text):
    """Whole numbers carry no decimals, tiers carry a K from 1024 on."""
    assert text == str(size)


# Ratios


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("row", CORNERS, ids=lambda row: row["size"])
def test_nearest_ratio_and_its_error(row, vocabulary):
    """Each of the 47 sizes goes to the expected word of each vocabulary, with the expected error."""
    width, height = map(int, row["size"].split("x"))
    word, percent = row[vocabulary].rstrip("%)").split("(")
    nearest, off = nearest_ratio(log_ratio(width, height), VOCABULARIES[vocabulary])
    assert word == nearest
    assert float(percent) / 100 == pytest.approx(off, abs=0.000_501)


def test_the_table_of_corners_is_whole():
    """47 sizes in seven vocabularies were looked at."""
    assert (47, {"size", *VOCABULARIES}) == (len(CORNERS), set(CORNERS[0]))


@pytest.mark.parametrize(
    ("square_side", "wide_side", "middle"),
    [
        ("1:1", "5:4", 1.1180),
        ("5:4", "4:3", 1.2910),
        ("4:3", "3:2", 1.4142),
        ("3:2", "16:9", 1.6330),
        ("16:9", "2:1", 1.8856),
        ("2:1", "21:9", 2.1602),
    ],
)
def test_ratios_change_at_the_logarithmic_middle(square_side, wide_side, middle):
    """The border between two ratios is their geometric mean, in landscape and in portrait."""
    for edge, expected in ((middle - 0.001, square_side), (middle + 0.001, wide_side)):
        assert expected == nearest_ratio(log(edge), TOAPIS)[0]
        assert flipped(expected) == nearest_ratio(-log(edge), TOAPIS)[0]


@given(st.sampled_from(sorted(VOCABULARIES)), EDGES, EDGES)
def test_nearest_ratio_never_flips(vocabulary, width, height):
    """A landscape size gets no portrait ratio, a portrait size no landscape ratio, a square the square."""
    word, off = nearest_ratio(log_ratio(width, height), VOCABULARIES[vocabulary])
    first, second = map(float, word.split(":"))
    assert (first - second) * (width - height) >= 0
    assert width != height or first == second
    assert exp(abs(log(width / height) - log(first / second))) - 1 == pytest.approx(off, abs=1e-9)


@given(st.sampled_from(SYMMETRIC), EDGES, EDGES)
def test_nearest_ratio_of_a_portrait_is_that_of_its_landscape_turned(vocabulary, width, height):
    """In a vocabulary with twins, a size and its twin get twins."""
    words = VOCABULARIES[vocabulary]
    word, off = nearest_ratio(log_ratio(width, height), words)
    assert (flipped(word), off) == nearest_ratio(log_ratio(height, width), words)


def test_a_vocabulary_without_the_orientation_has_nothing():
    """Portrait is never answered by landscape, however near."""
    assert (None, inf) == nearest_ratio(log_ratio(9, 16), ("16:9", "4:3"))


def published_models() -> dict[tuple[str, str], set[str]]:
    models: dict[tuple[str, str], set[str]] = {}
    for row in PUBLISHED:
        if row["ratio"] != "?":
            models.setdefault((row["provider"], row["model"]), set()).add(row["ratio"])
    return models


@pytest.mark.parametrize("model", sorted(published_models()), ids="/".join)
def test_published_sizes_are_nearest_to_their_own_ratio(model):
    """Every size that a provider publishes leads back to the ratio that it stands under."""
    vocabulary = published_models()[model]
    rows = [row for row in PUBLISHED if (row["provider"], row["model"]) == model and row["ratio"] != "?"]
    found = [nearest_ratio(log_ratio(int(row["width"]), int(row["height"])), sorted(vocabulary))[0] for row in rows]
    assert [row["ratio"] for row in rows] == found


# Tiers

TIERED = [row for row in PUBLISHED if row["tier"] in ("512", "1K", "2K", "4K")]


def test_published_sizes_are_in_their_own_tier():
    """The cut-offs sort all 270 published sizes of the tiers 512, 1K, 2K and 4K as their providers do."""
    found = [str(tier_of_area(int(row["width"]) * int(row["height"]))) for row in TIERED]
    assert len(found) == 270
    assert [row["tier"] for row in TIERED] == found


@pytest.mark.parametrize(
    ("area", "tier"),
    [
        (1, "512"),
        (524_288, "512"),
        (524_289, "1K"),
        (1792 * 1024, "1K"),
        (1920 * 1080, "1K"),
        (2_228_224, "1K"),
        (2_228_225, "2K"),
        (2048 * 1152, "2K"),
        (2560 * 1440, "2K"),
        (5_767_168, "2K"),
        (5_767_169, "4K"),
        (2880 * 2880, "4K"),
        (3840 * 2160, "4K"),
        (10**12, "4K"),
    ],
)
def test_tiers_change_at_the_cut_offs(area, tier):
    """The area decides, and a size on the cut-off is still in the lower tier."""
    assert tier == str(tier_of_area(area))


@pytest.mark.parametrize(
    ("asked", "words", "expected"),
    [
        ("1K", ("1k", "2k", "4k"), "1k"),
        ("1K", ("1K", "2K", "4K"), "1K"),
        ("4K", ("1k", "2k"), "2k"),
        ("512", ("1K", "2K"), "1K"),
        ("1.5K", ("1k", "1.5k", "2k"), "1.5k"),
        ("3K", ("2K", "4K"), "4K"),
        ("2K", (), None),
    ],
)
def test_the_nearest_tier_in_the_providers_spelling(asked, words, expected):
    """Tiers go up or down to the nearest that there is, spelled as the provider spells it."""
    assert expected == nearest_tier(parse_size(asked), words)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("2K", ("1K", "4K")),
        ("2K", ("4K", "1K")),
        ("1K", ("0.5K", "2K")),
        ("4K", ("2K", "8K")),
        ("1K", ("512", "2K")),
        ("6K", ("4K", "9K")),
    ],
)
def test_of_two_tiers_that_are_equally_far_the_lower_one_is_taken(asked, words):
    """Half and double are equally far from a tier: the cheaper one wins."""
    assert min(words, key=lambda word: parse_size(word).edge) == nearest_tier(parse_size(asked), words)


# What requests ask for


@pytest.mark.parametrize(
    ("wanted", "area", "tier"),
    [
        (pixels(2048, 1152), 2048 * 1152, Tier(2048)),
        (Wanted(ratio=Ratio(16, 9), tier=Tier(4096)), 4096**2, Tier(4096)),
        (Wanted(ratio=Ratio(16, 9)), 1024**2, None),
        (Wanted(auto=True), 1024**2, None),
    ],
)
def test_what_is_wanted_has_an_area_and_perhaps_a_tier(wanted, area, tier):
    """Pixels say both, a tier says its square, a mere ratio is taken at 1K but asks for no tier."""
    assert (area, tier) == (wanted.area, wanted.nominal_tier)


# Lists of sizes

GPT_IMAGE_1 = ListRule(values=("auto", "1024x1024", "1536x1024", "1024x1536"))
DALL_E_2 = ListRule(values=("256x256", "512x512", "1024x1024"))
DALL_E_3 = ListRule(values=("1024x1024", "1792x1024", "1024x1792"))


@pytest.mark.parametrize(
    ("rule", "wanted", "expected"),
    [
        (GPT_IMAGE_1, pixels(1792, 1024), "1536x1024"),
        (GPT_IMAGE_1, pixels(1024, 1792), "1024x1536"),
        (GPT_IMAGE_1, pixels(1536, 1024), "1536x1024"),
        (GPT_IMAGE_1, pixels(4096, 4096), "1024x1024"),
        (GPT_IMAGE_1, Wanted(ratio=Ratio(16, 9)), "1536x1024"),
        (GPT_IMAGE_1, Wanted(auto=True), "auto"),
        (DALL_E_2, pixels(300, 300), "256x256"),
        (DALL_E_2, pixels(400, 400), "512x512"),
        (DALL_E_2, pixels(2048, 2048), "1024x1024"),
        (DALL_E_2, Wanted(ratio=Ratio(1, 1)), "1024x1024"),
        (DALL_E_3, pixels(1536, 1024), "1792x1024"),
        (DALL_E_3, pixels(3840, 2160), "1792x1024"),
    ],
)
def test_a_list_gives_the_size_nearest_in_ratio_then_in_area(rule, wanted, expected):
    """The ratio comes first; among sizes of one ratio the area decides."""
    assert {"size": expected} == rule.fit(wanted).fields


def test_a_list_without_auto_leaves_auto_out():
    """`auto` never becomes a size."""
    assert Fitted({}) == DALL_E_3.fit(Wanted(auto=True))


def test_only_the_very_size_is_exact_in_a_list():
    """A size is exact where it stands in the list, however near the others are."""
    answers = (GPT_IMAGE_1.fit(pixels(1536, 1024)), GPT_IMAGE_1.fit(pixels(1536, 1025)))
    assert [fitted.exact for fitted in answers] == [True, False]


def test_a_list_of_one_orientation_has_nothing_for_the_other():
    """Landscape sizes cannot stand in for a portrait one."""
    assert Fitted({}, inf, exact=False) == ListRule(values=("1536x1024",)).fit(pixels(1024, 1536))


# Sizes within limits


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("1024x1024", "1024x1024"),
        ("1280x720", "1280x720"),
        ("1920x1088", "1920x1088"),
        ("896x896", "896x896"),
        ("1920x1080", "1920x1088"),
        ("512x512", "816x816"),
        ("256x256", "816x816"),
        ("768x768", "816x816"),
        ("4096x4096", "2880x2880"),
        ("3840x2160", "3840x2160"),
        ("3072x1024", "3072x1024"),
    ],
)
def test_gpt_image_2_takes_the_nearest_legal_size(size, expected):
    """Sizes that were accepted live pass; others are moved to a multiple of 16 within the limits."""
    width, height = map(int, size.split("x"))
    assert {"size": expected} == GPT_IMAGE_2.fit(pixels(width, height)).fields


@pytest.mark.parametrize("size", ["1792x936", "2880x1620", "1000x1000", "100x100", "4096x1024", "1365x1024"])
def test_gpt_image_2_moves_a_size_no_further_than_the_grid(size):
    """A size is moved by less than a step of 16 where only the grid forbids it, and stays near its ratio."""
    width, height = map(int, size.split("x"))
    fitted = GPT_IMAGE_2.fit(pixels(width, height))
    got = parse_size(fitted.fields["size"])
    assert GPT_IMAGE_2.allows(got)
    if 655_360 <= width * height <= 8_294_400 and max(width, height) <= 3 * min(width, height):
        assert max(abs(got.width - width), abs(got.height - height)) < 16


@pytest.mark.parametrize(
    ("size", "legal"),
    [
        ((768, 768), False),
        ((1024, 576), False),
        ((832, 480), False),
        ((512, 512), False),
        ((256, 256), False),
        ((576, 1024), False),
        ((4096, 4096), False),
        ((2304, 4096), False),
        ((1792, 936), False),
        ((2880, 1620), False),
        ((9, 9), False),
        ((3088, 1024), False),
        ((1280, 720), True),
        ((1920, 1088), True),
        ((896, 896), True),
        ((3072, 1024), True),
        ((2880, 2880), True),
        ((3840, 2160), True),
    ],
)
def test_gpt_image_2_allows_what_was_accepted_live(size, legal):
    """The limits are those that the live API was seen to keep."""
    assert legal == GPT_IMAGE_2.allows(Pixels(*size))


@pytest.mark.parametrize(
    ("ratio", "tier", "expected"),
    [
        ("16:9", "2K", "2048x1152"),
        ("16:9", "4K", "3840x2160"),
        ("16:9", None, "1536x864"),
        ("21:9", "1K", "2016x864"),
        ("21:9", "2K", "2688x1152"),
        ("21:9", "4K", "3840x1648"),
        ("9:21", "4K", "1648x3840"),
        ("1:1", "2K", "2048x2048"),
    ],
)
def test_gpt_image_2_has_listed_sizes_for_ratios_and_tiers(ratio, tier, expected):
    """A ratio and a tier become the size that relays publish for them, and that is no compromise."""
    wanted = Wanted(ratio=parse_size(ratio), tier=parse_size(tier) if tier else None)
    fitted = GPT_IMAGE_2.fit(wanted)
    assert ({"size": expected}, True) == (fitted.fields, fitted.exact)


def test_every_listed_size_is_legal_and_near_its_ratio():
    """The table of sizes keeps the model's own limits."""
    for tier, ratios in GPT_IMAGE_2.tiers.items():
        for ratio, size in ratios.items():
            found = parse_size(size)
            first, second = map(float, ratio.split(":"))
            assert (size, True) == (str(found), GPT_IMAGE_2.allows(found))
            assert abs(log_ratio(*found) - log_ratio(first, second)) < log(1.03)
            assert tier == str(tier_of_area(found.area))
            assert flipped(size) == ratios[flipped(ratio)]


@pytest.mark.parametrize(("ratio", "off"), [((4, 1), 1 / 3), ((8, 1), 5 / 3)])
def test_a_ratio_beyond_the_limit_is_clamped_and_says_by_how_much(ratio, off):
    """3:1 is the widest that gpt-image-2 makes."""
    fitted = GPT_IMAGE_2.fit(Wanted(ratio=Ratio(*ratio)))
    got = parse_size(fitted.fields["size"])
    assert got.width / got.height == 3.0
    assert (pytest.approx(off), False) == (fitted.off, fitted.exact)


@pytest.mark.parametrize(("auto", "expected"), [(True, {"size": "auto"}), (False, {})])
def test_auto_passes_where_the_model_has_the_word(auto, expected):
    """`auto` is sent or left out; it never becomes a size."""
    assert expected == FlexibleRule(auto=auto).fit(Wanted(auto=True)).fields


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(tier=Tier(2048)), "2K"),
        (Wanted(tier=Tier(3072)), "3K"),
        (Wanted(ratio=Ratio(1, 1), tier=Tier(2048)), "2048x2048"),
        (pixels(2048, 2048), "2048x2048"),
        (pixels(1024, 1024), "1920x1920"),
    ],
)
def test_a_tier_is_sent_as_a_word_where_the_field_takes_it(wanted, expected):
    """Seedream takes a tier or pixels in one field, never both."""
    rule = FlexibleRule(min_pixels=3_686_400, max_pixels=16_777_216, max_ratio=16, values=("2K", "3K", "4K"))
    assert {"size": expected} == rule.fit(wanted).fields


@pytest.mark.parametrize(("size", "expected"), [("1728x960", "1728x960"), ("1728x992", "1792x1024")])
def test_a_size_outside_of_the_limits_is_taken_where_it_is_named(size, expected):
    """GLM-Image, for one, has two of its own whose short edge is shorter than any other may be."""
    rule = FlexibleRule(multiple=32, min_edge=1024, max_edge=2048, values=("1728x960", "960x1728"))
    pixels = parse_size(size)
    assert rule.fit(Wanted(ratio=Ratio(*pixels), pixels=pixels)).fields == {"size": expected}


def test_limits_that_nothing_meets_have_no_size():
    """Where no size is legal there is none, and it is infinitely far off."""
    rule = FlexibleRule(multiple=16, max_edge=64, min_pixels=10_000)
    assert Fitted({}, inf, exact=False) == rule.fit(pixels(1024, 1024))


@st.composite
def flexible_rules(draw: st.DrawFn) -> FlexibleRule:
    multiple = draw(st.sampled_from((1, 2, 8, 16, 32, 64)))
    min_pixels = draw(st.integers(1, 4_000_000))
    return FlexibleRule(
        multiple=multiple,
        min_edge=draw(st.integers(1, 512)),
        max_edge=draw(st.integers(1024, 16_384)),
        min_pixels=min_pixels,
        max_pixels=min_pixels + draw(st.integers(300_000, 20_000_000)),
        max_ratio=draw(st.sampled_from((1.5, 2.0, 3.0, 16.0, 100.0))),
    )


def keeps(rule: FlexibleRule, width: int, height: int) -> bool:
    """The limits again, in other words."""
    long, short = max(width, height), min(width, height)
    steps = (long / rule.multiple).is_integer() and (short / rule.multiple).is_integer()
    edges = rule.min_edge <= short and long <= rule.max_edge
    area = not (width * height < rule.min_pixels or width * height > rule.max_pixels)
    return steps and edges and area and long / short <= rule.max_ratio


@given(flexible_rules(), EDGES, EDGES)
def test_sizes_within_limits_are_legal_and_of_the_asked_orientation(rule, width, height):
    """Whatever is asked of whichever limits, the answer keeps them, and a legal size is left alone."""
    fitted = rule.fit(pixels(width, height))
    if not fitted.fields:
        assert inf == fitted.off
        return
    found = parse_size(fitted.fields["size"])
    got = (found.width, found.height)
    assert keeps(rule, *got)
    assert (got[0] - got[1]) * (width - height) >= 0
    assert exp(abs(log(got[0] / got[1]) - log(width / height))) - 1 == pytest.approx(fitted.off, abs=1e-9)
    if keeps(rule, width, height):
        assert (width, height) == got


@given(flexible_rules(), EDGES, EDGES)
def test_sizes_within_limits_turn_with_the_question(rule, width, height):
    """A portrait size gets the portrait twin of what its landscape twin gets."""
    sizes = rule.fit(pixels(width, height)).fields, rule.fit(pixels(height, width)).fields
    assert {name: flipped(value) for name, value in sizes[0].items()} == sizes[1]


@given(EDGES, EDGES)
def test_gpt_image_2_has_a_legal_size_for_every_question(width, height):
    """No size is asked for that gpt-image-2 has no answer to, and the area stays where it is legal."""
    fitted = GPT_IMAGE_2.fit(pixels(width, height))
    found = parse_size(fitted.fields["size"])
    assert keeps(GPT_IMAGE_2, found.width, found.height)
    if 700_000 <= width * height <= 8_000_000 and max(width, height) <= min(3 * min(width, height), 3840):
        assert abs(log(found.area) - log(width * height)) < 0.1


# Ratios, with and without tiers


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (pixels(3840, 2160), {"aspect_ratio": "16:9"}),
        (Wanted(ratio=Ratio(3, 2), tier=Tier(4096)), {"aspect_ratio": "3:2"}),
        (Wanted(tier=Tier(2048)), {}),
        (Wanted(auto=True), {}),
    ],
)
def test_a_ratio_rule_has_no_tier(wanted, expected):
    """Gemini 2.5 takes a ratio and nothing else."""
    assert expected == RatioRule(ratios=GEMINI).fit(wanted).fields


def test_a_ratio_written_as_one_passes_where_any_is_taken():
    """A ratio of the client's own passes; pixels are still mapped to the vocabulary."""
    rule = RatioRule(ratios=GEMINI, any_ratio=True)
    asked = (Wanted(ratio=Ratio(7, 4)), pixels(1792, 1024))
    assert [rule.fit(wanted).fields["aspect_ratio"] for wanted in asked] == ["7:4", "16:9"]


@pytest.mark.parametrize(("auto", "expected"), [(True, {"aspect_ratio": "auto"}), (False, {})])
def test_auto_is_a_ratio_only_where_the_vocabulary_has_it(auto, expected):
    """`auto` is sent as the dialect's own word or left out."""
    assert expected == RatioRule(ratios=GEMINI, auto=auto).fit(Wanted(auto=True)).fields


TIERS = RatioTierRule(
    ratios=TOAPIS,
    field="size",
    auto=True,
    tiers=("1k", "2k", "4k"),
    pairs={"1k": ("1:1", "3:2", "2:3"), "4k": WIDE},
    default_tier="1k",
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (pixels(2048, 2048), ("1:1", "2k")),
        (pixels(3840, 2160), ("16:9", "4k")),
        (pixels(4096, 4096), ("1:1", "2k")),
        (pixels(1280, 720), ("16:9", "2k")),
        (pixels(1024, 1024), ("1:1", "1k")),
        (Wanted(ratio=Ratio(16, 9)), ("16:9", "2k")),
        (Wanted(ratio=Ratio(3, 2)), ("3:2", None)),
        (Wanted(tier=Tier(4096)), (None, "4k")),
    ],
)
def test_the_tier_moves_to_one_that_the_ratio_has(wanted, expected):
    """The ratio never changes to save the tier, and a default that the ratio lacks is replaced."""
    fields = TIERS.fit(wanted).fields
    assert expected == (fields.get("size"), fields.get("resolution"))


@given(EDGES, EDGES)
def test_pairs_exist_for_every_size(width, height):
    """Only pairs of ratio and tier are answered that the model has."""
    fields = TIERS.fit(pixels(width, height)).fields
    assert fields["size"] in TIERS.pairs.get(fields["resolution"], TOAPIS)


def test_a_tier_is_left_out_beside_references_where_it_is_refused():
    """Some models take no resolution for image-to-image."""
    rule = RatioTierRule(ratios=GEMINI, tiers=("1k", "2k"), tier_with_references=False)
    answers = [rule.fit(pixels(2048, 2048), with_references=given).fields for given in (False, True)]
    assert answers == [{"aspect_ratio": "1:1", "resolution": "2k"}, {"aspect_ratio": "1:1"}]


@pytest.mark.parametrize(
    ("wanted", "exact"),
    [
        (pixels(2752, 1536), True),
        (pixels(1344, 768), True),
        (pixels(1200, 630), False),
        (pixels(4096, 4096), False),
        (Wanted(ratio=Ratio(16, 9), tier=Tier(2048)), True),
        (Wanted(ratio=Ratio(16, 9), tier=Tier(4096)), False),
    ],
)
def test_a_ratio_and_tier_are_exact_within_what_providers_publish(wanted, exact):
    """Published sizes stray by up to 3 % from their ratio; a tier must be the very one."""
    assert exact == RatioTierRule(ratios=GEMINI, tiers=("1K", "2K")).fit(wanted).exact


@pytest.mark.parametrize("wanted", [pixels(1024, 1024), Wanted(ratio=Ratio(16, 9)), Wanted(tier=Tier(2048))])
def test_a_model_without_sizes_gets_none(wanted):
    """The size is left out, which is not what was asked."""
    assert Fitted({}, exact=False) == NoSizeRule().fit(wanted)


# What a refusal says

GPT_IMAGE_2_LIMITS = (
    "Supported is WIDTHxHEIGHT with both edges divisible by 16, the long edge at most 3840, the ratio at most 3:1, "
    "between 655,360 and 8,294,400 pixels in all, or 'auto'."
)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (DALL_E_3, "Supported values are: '1024x1024', '1792x1024', '1024x1792'."),
        (GPT_IMAGE_2, GPT_IMAGE_2_LIMITS),
        (RatioRule(ratios=("1:1", "3:2"), auto=True), "Supported ratios are: '1:1', '3:2', 'auto'."),
        (
            RatioTierRule(ratios=("1:1", "3:2"), tiers=("1k", "2k")),
            "Supported ratios are: '1:1', '3:2'. Supported tiers are: '1k', '2k'.",
        ),
        (NoSizeRule(), "This model takes no size."),
    ],
)
def test_rules_describe_themselves(rule, text):
    """A rule says what it allows in a sentence for clients."""
    assert text == rule.describe()


@given(
    st.sampled_from([GPT_IMAGE_1, DALL_E_3, TIERS, RatioRule(ratios=TOAPIS)]),
    st.sampled_from(list(product((16, 9, 3, 2, 21, 1), repeat=2))),
)
def test_ratios_turn_with_the_question(rule, sides):
    """In every rule with twins a ratio's twin gets the twin."""
    answers = [rule.fit(Wanted(ratio=Ratio(*pair))).fields for pair in (sides, sides[::-1])]
    assert {name: flipped(value) for name, value in answers[0].items()} == answers[1]


# A list with a word for ratios beside it


def test_a_list_may_have_ratios_beside_it():
    """What names pixels stays among the pixels; what names a ratio goes where ratios go."""
    rule = ListRule(values=("1024x1024", "1312x736"), field="resolution", ratios=("1x1", "16x9"))
    assert rule.members == ("resolution", "aspect_ratio")
    assert rule.fit(Wanted(ratio=Ratio(1, 1), pixels=Pixels(1024, 1024))).fields == {"resolution": "1024x1024"}
    assert rule.fit(Wanted(ratio=Ratio(16, 9))) == Fitted({"aspect_ratio": "16x9"})
    assert rule.fit(Wanted(ratio=Ratio(16, 9), tier=Tier(2048))).exact is False
    assert ListRule(values=("1024x1024",), ratios=("16:9",)).fit(Wanted(ratio=Ratio(1, 3))).off == inf
    assert "'16x9'" in rule.describe()
    own = ListRule(values=("1024x1024",), ratios=("3:2",), ratio_field="size")
    assert own.fit(Wanted(ratio=Ratio(3, 2))).fields == {"size": "3:2"}
    with pytest.raises(ValueError, match="does not belong there"):
        ListRule(values=("1024x1024",), ratios=("auto",))


@pytest.mark.parametrize(
    ("asked", "fitted"),
    [("16:9", "1824x1024"), ("3:4", "1024x1376"), ("1600x200", "2048x1024"), ("400x300", "1376x1024")],
)
def test_a_short_edge_that_is_too_short_keeps_the_ratio(asked, fitted):
    """The nearest in ratio comes first: a larger size of it, as far as there is one."""
    rule = FlexibleRule(multiple=32, min_edge=1024, max_edge=2048)
    shape = parse_size(asked)
    pixels = shape if isinstance(shape, Pixels) else None
    wanted = Wanted(ratio=Ratio(*shape), pixels=pixels)
    assert rule.fit(wanted).fields == {"size": fitted}
