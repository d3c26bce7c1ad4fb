"""AtrousFeatures(normalize=...): the features of images that were normalized by hand, whole or in blocks."""

import numpy as np
import pytest

from dconv import AtrousFeatures, PixelClassifier
from dconv._intensity import Intensity, colorless, intensity_of, mostly_grey, of_several_kinds, pooled

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (70, 60), dtype=np.uint8)
COLOUR = rng.normal(100, 20, (50, 64, 3)).astype(np.float32)
NEARLY_GREY = GREY[..., np.newaxis] + rng.integers(-2, 3, (*GREY.shape, 3))
CHANNELS = {"channel_axis": -1}


def by_hand(image, mean=None, std=None):
    grey = image.astype(float).mean(axis=-1) if image.ndim == 3 else image.astype(float)
    return (image - (grey.mean() if mean is None else mean)) / (grey.std() if std is None else std)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("scheme", ["atrous", "pyramid"])
@pytest.mark.parametrize("image", [GREY, COLOUR, COLOUR[..., :2]], ids=["grey", "RGB", "two channels"])
def test_each_image_by_itself(image, scheme):
    options = {"scheme": scheme} | (CHANNELS if image.ndim == 3 else {})
    several = [image, 3 * image[:40].astype(np.float32) - 7]
    bank = AtrousFeatures(3, normalize="image", **options).fit(several)
    assert bank.normalize_ == "image"
    for actual, each in zip(bank.transform(several), several, strict=True):
        assert_close(actual, AtrousFeatures(3, **options).fit_transform(by_hand(each)))
    unknown = image[::-1] * np.float32(0.3)  # not seen at fit
    assert_close(bank.transform(unknown), AtrousFeatures(3, **options).fit_transform(by_hand(unknown)))


def test_all_images_of_fit_together():
    several = [GREY, GREY[:40].astype(float) + 90]
    bank = AtrousFeatures(3, normalize="training").fit(several)
    pixels = np.concatenate([each.ravel() for each in several])
    other = GREY[10:50, 20:] * 2.0
    expected = AtrousFeatures(3).fit_transform(by_hand(other, pixels.mean(), pixels.std()))
    assert_close(bank.transform(other), expected)


@pytest.mark.parametrize(
    ("images", "normalize", "n_planes"),
    [
        ([GREY], "image", 1),
        ([GREY[..., np.newaxis].repeat(3, axis=-1)], "image", 1),
        ([NEARLY_GREY], "image", 1),
        ([NEARLY_GREY, NEARLY_GREY, COLOUR], "image", 3),  # a few in colour: it is kept
        ([NEARLY_GREY, COLOUR, COLOUR], None, 3),
        ([COLOUR], None, 3),
    ],
)
def test_auto_normalizes_what_is_grey(images, normalize, n_planes):
    options = CHANNELS if images[0].ndim == 3 else {}
    bank = AtrousFeatures(3, normalize="auto", **options).fit(images)
    assert bank.normalize_ == normalize
    assert len({name.split("_")[0] for name in bank.get_feature_names_out()}) == n_planes
    if n_planes == 3:
        expected = AtrousFeatures(3, normalize=normalize, **options).fit(images).transform(images)
        for actual, each in zip(bank.transform(images), expected, strict=True):
            np.testing.assert_array_equal(actual, each)


@pytest.mark.parametrize("scheme", ["atrous", "pyramid"])
@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "RGB"])
def test_both_has_the_brightness_beside(image, scheme):
    options = {"scheme": scheme} | (CHANNELS if image.ndim == 3 else {})
    bank = AtrousFeatures(3, normalize="both", color_groups=["level", "std"], **options).fit(image)
    assert bank.normalize_ == "both"
    names = bank.get_feature_names_out().tolist()
    beside = [name.startswith("brightness") for name in names]
    assert sum(beside) == 7
    dark = image * np.float32(0.3)
    features = bank.transform(dark)
    alone = AtrousFeatures(3, normalize="image", color_groups=["level", "std"], **options).fit(image)
    np.testing.assert_array_equal(features[..., np.logical_not(beside)], alone.transform(dark))
    grey = dark if image.ndim == 2 else dark.mean(axis=-1)
    plain = AtrousFeatures(3, groups=["level", "std"], scheme=scheme).fit_transform(grey)
    np.testing.assert_allclose(features[..., beside], plain, rtol=1e-4, atol=1e-3)
    assert AtrousFeatures(3, normalize="both", color_groups=[], **options).fit(image).n_features_out_ == 40


def test_auto_takes_both_where_eight_images_differ():
    """By contrast, or by brightness; not of series, and not images in colour."""
    contrasts = [GREY * np.float32(2**k) for k in range(8)]
    bright = [GREY + np.float32(400 * k) for k in range(8)]
    alike = [GREY * np.float32(1 + 0.01 * k) for k in range(8)]
    flat = np.full_like(GREY, 7)
    for images, normalize in (
        (contrasts, "both"),
        (bright, "both"),
        (bright[:7], "image"),
        ([*bright[:7], flat], "image"),  # which has no contrast to compare
        (alike, "image"),
    ):
        assert AtrousFeatures(2, normalize="auto").fit(images).normalize_ == normalize
    assert of_several_kinds([intensity_of(image[..., np.newaxis]) for image in bright])
    lines = [image[0] for image in bright]
    assert AtrousFeatures(2, normalize="auto", ndim=1).fit(lines).normalize_ == "image"
    coloured = [COLOUR * np.float32(2**k) for k in range(8)]
    assert AtrousFeatures(2, normalize="auto", channel_axis=-1).fit(coloured).normalize_ is None


@pytest.mark.parametrize("normalize", ["image", "training", "both", "auto"])
def test_blocks_change_no_bit(monkeypatch, normalize):
    labels = rng.integers(0, 3, GREY.shape)
    whole = PixelClassifier(AtrousFeatures(3, normalize=normalize), random_state=0).fit(GREY, labels)
    other = GREY[:, ::-1] // 2
    expected = whole.predict_proba(other)
    monkeypatch.setattr("dconv._pixels.BLOCK_PIXELS", 500)
    monkeypatch.setattr("dconv._bank._BAND_PIXELS", 500)
    block = (slice(11, 39), slice(5, 30))
    bank = whole.features_
    of_image = bank._for_image(other[..., np.newaxis])
    np.testing.assert_array_equal(
        of_image._transform_block(other[..., np.newaxis], block), bank.transform(other)[block]
    )
    np.testing.assert_array_equal(whole.predict_proba(other), expected)


def test_brightness_and_contrast_do_not_matter_to_the_default():
    labels = np.zeros(GREY.shape, int)
    half = GREY.copy()
    half[:, 30:] //= 2
    labels[::9, :25], labels[::9, 35:] = 1, 2
    segmenter = PixelClassifier(random_state=0).fit(half, labels)
    np.testing.assert_allclose(segmenter.predict_proba(half), segmenter.predict_proba(half * 0.01 + 3), atol=1e-3)


def test_features_that_were_kept_are_not_those_of_another_fit():
    labels = rng.integers(0, 3, GREY.shape)
    segmenter = PixelClassifier(AtrousFeatures(2, normalize="training"), random_state=0)
    both = segmenter.fit([GREY, GREY // 4], [labels, labels]).predict_proba(GREY)
    alone = segmenter.fit([GREY], [labels]).predict_proba(GREY)
    fresh = PixelClassifier(AtrousFeatures(2, normalize="training"), random_state=0).fit([GREY], [labels])
    np.testing.assert_array_equal(alone, fresh.predict_proba(GREY))
    assert np.any(alone != both)


def test_intensity_is_exact_and_of_any_size(monkeypatch):
    monkeypatch.setattr("dconv._intensity._CHUNK", 1000)
    image = rng.normal(30000, 0.01, (90, 41, 3))
    found = intensity_of(image)
    grey = image.mean(axis=-1)
    colours = (
        ((image - grey[..., np.newaxis]) - (image - grey[..., np.newaxis]).mean(axis=(0, 1))).var(axis=(0, 1)).sum()
    )
    assert found.mean == pytest.approx(grey.mean(), rel=1e-14)
    assert found.std == pytest.approx(grey.std(), rel=1e-6)
    assert found.color == pytest.approx(colours, rel=1e-6)
    assert found.share_of_color == pytest.approx(colours / grey.var(), rel=1e-6)
    parts = [intensity_of(image[:17]), intensity_of(image[17:])]
    assert pooled(parts).mean == pytest.approx(found.mean, rel=1e-14)
    assert pooled(parts).std == pytest.approx(found.std, rel=1e-5)


def test_constant_images_have_no_contrast():
    flat = np.full((40, 40), 7, np.uint8)
    found = intensity_of(flat[..., np.newaxis])
    assert (found.mean, found.std, found.share_of_color) == (7.0, 1.0, 0.0)
    assert np.isfinite(AtrousFeatures(2, normalize="image").fit_transform(flat)).all()
    tinted = np.broadcast_to(np.array([1.0, 2, 3]), (40, 40, 3))
    assert colorless([intensity_of(tinted)])  # colour that does not vary tells nothing
    assert mostly_grey([intensity_of(tinted)])


def test_faint_colour_counts_beside_the_intensity_itself_and_beside_its_variance():
    """Of a grey thing in a photograph: 4 % of the variance, and far less of what there is of light."""

    def photograph(mean, std, color):
        return rng.normal(mean, std, (60, 50, 1)) + color * rng.normal(size=(60, 50, 3))

    faint = [intensity_of(photograph(130, 12, 1.6)) for _ in range(3)]  # colour: two planes, 1.6 each
    assert min(each.share_of_color for each in faint) > 0.02  # not negligible
    assert colorless(faint)
    assert mostly_grey(faint)
    for mean, std, color in ((75, 40, 6.0), (130, 3, 1.6), (0, 12, 1.6)):  # of the light; of the variance; no light
        vivid = [intensity_of(photograph(mean, std, color)) for _ in range(3)]
        assert not colorless(vivid)
        assert not mostly_grey(vivid)
    assert not colorless([*faint, intensity_of(photograph(130, 40, 25.0))])  # one in colour among them tells


@pytest.mark.parametrize(
    ("mean", "color", "grey"),
    [
        (0.0, 0.0099, True),  # less than 1 % of the variance of the intensity, of each
        (0.0, 0.0101, False),
        (100.0, 0.099, True),  # less than 10 % of it, of all together ...
        (100.0, 0.101, False),
        (7.1, 0.05, True),  # ... and less than 0.1 % of the mean square, which is mean**2 + 1
        (6.9, 0.05, False),
    ],
)
def test_bounds_of_grey_are_as_documented(mean, color, grey):
    intensities = [Intensity(mean, 1.0, 100, color)] * 2
    assert colorless(intensities) is grey
    assert mostly_grey(intensities) is grey


@pytest.mark.parametrize(
    ("contrast", "brightness", "n", "several"),
    [
        (0.41, 0.0, 8, True),  # the standard deviation of the logarithm
        (0.39, 0.0, 8, False),
        (0.41, 0.0, 7, False),
        (0.0, 1.01, 8, True),  # that of the mean, by the median contrast
        (0.0, 0.99, 8, False),
    ],
)
def test_bounds_of_several_kinds_are_as_documented(contrast, brightness, n, several):
    signs = np.resize([1, -1], n)
    images = [Intensity(3 * brightness * sign, (3 * np.exp(contrast * sign)) ** 2, 100) for sign in signs]
    assert of_several_kinds(images) is several


def test_faint_colour_is_left_out_by_auto():
    image = rng.normal(130, 12, (60, 50, 1)) + 1.6 * rng.normal(size=(60, 50, 3))
    bank = AtrousFeatures(2, normalize="auto", channel_axis=-1).fit(image)
    assert bank.normalize_ == "image"
    grey = AtrousFeatures(2, normalize="image").fit(image.mean(axis=-1))
    assert list(bank.get_feature_names_out()) == list(grey.get_feature_names_out())
    np.testing.assert_allclose(bank.transform(image), grey.transform(image.mean(axis=-1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", ["images", True, 1, ["image"]])
def test_other_values_are_refused(value):
    with pytest.raises(ValueError, match="normalize must be one of None, 'image', 'training', 'both', 'auto'"):
        AtrousFeatures(2, normalize=value).fit(GREY)
