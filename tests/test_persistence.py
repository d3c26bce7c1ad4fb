"""Models in files: what comes back, and what files from elsewhere are refused."""

import importlib
import io
import json
import os
import pickle
import sys
import warnings
import zipfile
from unittest import mock

import numpy as np
import pytest
from images import BANK, make_image, make_images, scribble
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

import dconv
from dconv import ContextClassifier, DenseCRF, PixelClassifier, filters, persistence
from dconv._feature_groups import GROUPS

pytest.importorskip("skops", reason="models are written by skops")

IMAGE, LABELS = make_image((44, 52))
SCRIBBLES = scribble(LABELS)
ATROUS = dconv.AtrousFeatures(3)


def model(classifier=None, features=BANK, **options):
    classifier = GaussianNB() if classifier is None else classifier
    return PixelClassifier(features, classifier, random_state=0, **options).fit(IMAGE, SCRIBBLES)


def rewritten(path, **changed):
    """Change members of a file: functions from bytes to bytes, by the start of their name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for start, change in changed.items():
        (name,) = [name for name in members if name.startswith(start)]
        members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def header_changed(path, change):
    """Let `change` edit the header of a file, whose hash is made right again."""

    def edit(data):
        header = json.loads(data)
        change(header)
        header["feature_hash"] = persistence.hash_of(header["features"])
        return json.dumps(header).encode()

    rewritten(path, **{"dconv.json": edit})


# --- what comes back ---


@pytest.mark.parametrize(
    "options",
    [
        {"features": dconv.AtrousFeatures(3, normalize="training", filters=filters.gaussian(1))},
        {"features": dconv.AtrousFeatures(2, normalize="both")},
        {"features": dconv.AtrousFeatures(2, scheme="pyramid")},
        {"features": dconv.make_features(dconv.PixelPosition(), dconv.AtrousFeatures(2, scheme="pyramid"))},
        {"features": dconv.AtrousContext(dconv.AtrousFeatures(2, scheme="pyramid"), random_state=0)},
        {"features": ATROUS, "distill": True},
        {"features": ATROUS, "refine": DenseCRF(n_iter=2)},
        {"features": BANK},
    ],
    ids=lambda options: " ".join(str(value).split("(")[0] for value in options.values()),
)
def test_model_comes_back(tmp_path, options):
    before = model(LogisticRegression(max_iter=2000), **options)
    dconv.save(before, tmp_path / "m.dconv")
    after = dconv.load(tmp_path / "m.dconv")
    assert type(after) is type(before)
    assert str(after) == str(before)
    for method in ("predict", "predict_proba", "predict_entropy"):
        assert_array_equal(getattr(after, method)(IMAGE), getattr(before, method)(IMAGE))
    assert_array_equal(after.fit(IMAGE, SCRIBBLES).predict(IMAGE), before.predict(IMAGE))  # and learns again
    assert os.listdir(tmp_path) == ["m.dconv"]


def test_default_model_and_cascade_come_back(tmp_path):
    images, labels = make_images(((40, 50), (40, 44), (36, 44)))
    for before in (PixelClassifier(random_state=0), ContextClassifier(ATROUS, random_state=0)):
        before.fit(images, labels)
        dconv.save(before, tmp_path / "m.dconv")
        assert_array_equal(dconv.load(tmp_path / "m.dconv").predict_proba(IMAGE), before.predict_proba(IMAGE))


@pytest.mark.parametrize("segmenter", [None, ContextClassifier(ATROUS, GaussianNB())], ids=["default", "cascade"])
def test_detector_of_objects_comes_back(tmp_path, segmenter):
    rows, columns = np.indices((60, 70))
    masks = sum(i * ((rows - 12 * i) ** 2 + (columns - 14 * i) ** 2 < 40) for i in range(1, 5))
    images = [(masks > 0) + np.random.default_rng(i).normal(scale=0.2, size=masks.shape) for i in range(2)]
    before = dconv.ObjectDetector(segmenter, as_frame=False, min_size=5, random_state=0).fit(images, [masks, masks])
    dconv.save(before, tmp_path / "m.dconv")
    after = dconv.load(tmp_path / "m.dconv")
    assert str(after) == str(before)
    found, expected = after.predict_objects(images[0]), before.predict_objects(images[0])
    assert_array_equal(found.labels, expected.labels)
    assert len(expected.table["label"]) == 4
    for name, column in expected.table.items():
        assert_array_equal(found.table[name], column)
    training = persistence.read_header(tmp_path / "m.dconv")["training"]
    assert (training["estimator"], training["classes"]) == ("ObjectDetector", [1, 2, 3])
    assert_array_equal(after.fit(images, [masks, masks]).predict_objects(images[0]).labels, expected.labels)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("segmenter_", GaussianNB(), "its segmenter is a GaussianNB"),
        ("segmenter_", PixelClassifier(), "not fitted"),
        ("class_weight_", np.ones(2), "it has 2 weights for 3 classes"),
    ],
)
def test_detectors_that_fit_together_badly_are_refused(tmp_path, name, value, told):
    import skops.io

    rows, columns = np.indices((40, 40))
    masks = ((rows - 20) ** 2 + (columns - 20) ** 2 < 80).astype(int)
    detector = dconv.ObjectDetector(PixelClassifier(BANK, GaussianNB())).fit(masks * 1.0, masks)
    dconv.save(detector, tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "m") as archive:
        header = archive.read("dconv.json")
    setattr(detector, name, value)
    skops.io.dump(detector, tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "m", "a") as archive:
        archive.writestr("dconv.json", header)
    with pytest.raises(ValueError, match=told):
        dconv.load(tmp_path / "m")


def test_cascade_of_three_classes_comes_back(tmp_path):
    scribbles = np.where((SCRIBBLES == 1) & (np.indices(IMAGE.shape)[0] > 20), 3, SCRIBBLES)
    before = ContextClassifier(BANK, GaussianNB(), cv=2).fit(IMAGE, scribbles)
    dconv.save(before, tmp_path / "m.dconv")
    assert_array_equal(dconv.load(tmp_path / "m.dconv").predict_proba(IMAGE), before.predict_proba(IMAGE))


def test_a_cascade_of_other_context_is_refused(tmp_path):
    before = ContextClassifier(BANK, GaussianNB(), cv=2).fit(IMAGE, SCRIBBLES)
    before.n_context_features_ -= 17  # as files of earlier versions have it
    dconv.save(before, tmp_path / "m.dconv")
    with pytest.raises(ValueError, match="context had 91 features and now has 108; fit the model again"):
        dconv.load(tmp_path / "m.dconv")


@pytest.mark.parametrize("ndim", [1, 3])
def test_other_dimensions_and_channels(tmp_path, ndim):
    image = np.random.default_rng(0).normal(size=(2, *(20,) * ndim)).astype(np.float32)
    labels = 1 + (image[0] > 0)
    before = PixelClassifier(dconv.AtrousFeatures(2), GaussianNB(), ndim=ndim, channel_axis=0).fit(image, labels)
    dconv.save(before, tmp_path / "m.dconv")
    assert_array_equal(dconv.load(tmp_path / "m.dconv").predict(image), before.predict(image))


@pytest.mark.parametrize(
    "classifier",
    [
        AdaBoostClassifier(n_estimators=3, random_state=0),
        BaggingClassifier(n_estimators=3, random_state=0),
        CalibratedClassifierCV(GaussianNB(), cv=2),
        GaussianProcessClassifier(),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=KFold(2)),
        HistGradientBoostingClassifier(max_iter=3, random_state=0),
        RandomForestClassifier(3, random_state=0),
        SGDClassifier(random_state=0),
        SVC(),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
def test_classifiers_of_scikit_learn(tmp_path, classifier):
    before = model(classifier, max_samples=40)
    dconv.save(before, tmp_path / "m.dconv")
    assert_array_equal(dconv.load(tmp_path / "m.dconv").predict(IMAGE), before.predict(IMAGE))


def test_student_of_an_older_file_sees_all_features(tmp_path):
    with mock.patch("dconv._distillation.MIN_AGREEMENT", 0):
        before = model(features=dconv.AtrousFeatures(3, groups=["level", "gradient"]), distill=True)
    expected = before.predict(IMAGE)
    del before.student_features_
    dconv.save(before, tmp_path / "m.dconv")
    assert_array_equal(dconv.load(tmp_path / "m.dconv").predict(IMAGE), expected)


def test_positions_of_an_older_file_are_along_all_axes(tmp_path):
    with mock.patch("dconv.PixelPosition.__getstate__", lambda self: {"ndim": 2, "channel_axis": None, **fitted(self)}):
        before = model(features=dconv.make_features(dconv.PixelPosition(), ATROUS))
        dconv.save(before, tmp_path / "m.dconv")
    after = dconv.load(tmp_path / "m.dconv")
    assert_array_equal(after.predict_proba(IMAGE), before.predict_proba(IMAGE))
    assert after.features.get_params()["pixelposition__axes"] is None


def test_votes_of_an_older_file_are_without_a_discriminant(tmp_path):
    def getstate(self):
        return {name: value for name, value in vars(self).items() if name != "discriminant"}

    with mock.patch("dconv.AdaptiveVote.__getstate__", getstate):
        before = model(features=ATROUS, classifier=dconv.AdaptiveVote(GaussianNB(), GaussianNB(), random_state=0))
        dconv.save(before, tmp_path / "m.dconv")
    after = dconv.load(tmp_path / "m.dconv")
    assert_array_equal(after.predict_proba(IMAGE), before.predict_proba(IMAGE))
    assert after.classifier_.get_params(deep=False)["discriminant"] is None


def fitted(position):
    """Return what a fitted PixelPosition had before it had `axes`."""
    names = ["ndim_", "channel_axis_", "n_channels_in_", "n_features_out_", "halo_"]
    return {name: getattr(position, name) for name in names if hasattr(position, name)}


def test_header_tells_what_a_model_is(tmp_path):
    dconv.save(model(features=ATROUS), tmp_path / "m.dconv")
    header = persistence.read_header(tmp_path / "m.dconv")
    assert header["format"] == persistence.FORMAT
    assert set(header["versions"]) == {"dconv", "scikit-learn", "numpy"}
    assert header["training"]["classes"] == [1, 2]
    assert header["training"]["classifier"] == "GaussianNB"
    assert header["training"]["n_features"] == len(header["features"]["names"]) == 40
    assert header["features"]["names"][0] == "intensity_level_d1"


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path, monkeypatch):
    path = tmp_path / "m.dconv"
    path.write_bytes(b"before")

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        dconv.save(model(), path)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["m.dconv"]


# --- what is not written ---


class Foreign(TransformerMixin, BaseEstimator):
    """A transformer from outside."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X, np.float32)[..., np.newaxis]


def shifted(X):
    return X + 1


class Majority(ClassifierMixin, BaseEstimator):
    """A classifier from outside."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"features": Foreign()}, "Foreign"),
        ({"classifier": Majority()}, "Majority"),
        ({"classifier": make_pipeline(FunctionTransformer(shifted), GaussianNB())}, "shifted"),
        ({"classifier": KNeighborsClassifier(algorithm="kd_tree")}, "KDTree"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_strangers_are_not_written(tmp_path, parts, name):
    estimator = PixelClassifier(**{"features": BANK, "classifier": GaussianNB(), **parts})
    with pytest.raises(TypeError, match=name):
        dconv.save(estimator.fit(IMAGE, SCRIBBLES), tmp_path / "m.dconv")
    assert os.listdir(tmp_path) == []


def test_other_things_are_not_written(tmp_path):
    with pytest.raises(TypeError, match="got LogisticRegression"):
        dconv.save(LogisticRegression(), tmp_path / "m.dconv")
    with pytest.raises(NotFittedError):
        dconv.save(PixelClassifier(), tmp_path / "m.dconv")
    with pytest.raises(FileNotFoundError):
        dconv.save(model(), tmp_path / "nowhere" / "m.dconv")


def test_without_skops(tmp_path, monkeypatch):
    dconv.save(model(), tmp_path / "m.dconv")
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.delitem(sys.modules, "skops.io", raising=False)
    for call in (lambda: dconv.save(model(), tmp_path / "n"), lambda: dconv.load(tmp_path / "m.dconv")):
        with pytest.raises(ImportError, match=r'pip install "dconv\[save\]"'):
            call()
    assert persistence.read_header(tmp_path / "m.dconv")["format"] == 1


# --- what is not read ---


class Hostile:
    """Leaves a mark when it is built or given its state."""

    built = False

    def __new__(cls, *args):
        Hostile.built = True
        return super().__new__(cls)

    def __setstate__(self, state):
        Hostile.built = True

    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


@pytest.mark.parametrize(
    "node",
    [
        {"__class__": "system", "__module__": "posix", "__loader__": "FunctionNode"},
        {"__class__": "Hostile", "__module__": "test_persistence", "__loader__": "ObjectNode"},
        {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ObjectNode"},
        {"__class__": "load_svmlight_file", "__module__": "sklearn.datasets", "__loader__": "FunctionNode"},
        {"__class__": "Parallel", "__module__": "sklearn.utils.parallel", "__loader__": "ObjectNode"},
        {"__class__": "Path", "__module__": "dconv.persistence", "__loader__": "ObjectNode"},
    ],
    ids=lambda node: node["__class__"],
)
def test_hostile_types_are_refused_by_name(tmp_path, node, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.dconv"
    dconv.save(model(), path)

    def plant(data):
        schema = json.loads(data)
        attributes = schema["content"]["content"]
        attributes["verbose"] = {**node, "__id__": 1}
        return json.dumps(schema).encode()

    rewritten(path, **{"schema.json": plant})
    Hostile.built = False
    with pytest.raises(ValueError, match=rf"{node['__module__']}\.{node['__class__']}.*not been loaded"):
        dconv.load(path)
    assert not Hostile.built
    assert os.listdir(tmp_path) == ["m.dconv"]


def test_pickles_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.dconv"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match="is no model of dconv"):
        dconv.load(path)
    dconv.save(model(), path)

    def plant(data):
        buffer = io.BytesIO()
        np.save(buffer, np.array([Hostile()], dtype=object), allow_pickle=True)
        return buffer.getvalue()

    with zipfile.ZipFile(path) as archive:
        array = next(name for name in archive.namelist() if name.endswith(".npy"))
    rewritten(path, **{array: plant})
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        dconv.load(path)
    assert os.listdir(tmp_path) == ["m.dconv"]


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "m.dconv"
    dconv.save(model(), path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is no model of dconv, or damaged"):
            dconv.load(path)


def test_a_changed_byte_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "m.dconv"
    before = model()
    dconv.save(before, path)
    whole, expected = path.read_bytes(), before.predict_proba(IMAGE)
    rng, noticed = np.random.default_rng(0), 0
    for place in rng.choice(len(whole), 60, replace=False):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.integers(8))]) + whole[place + 1 :])
        try:
            after = dconv.load(path)
        except ValueError:
            noticed += 1
        else:
            assert_array_equal(after.predict_proba(IMAGE), expected)
    assert noticed > 40


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"\x80\x04N."])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    for read in (dconv.load, persistence.read_header):
        with pytest.raises(ValueError, match="is no model of dconv"):
            read(tmp_path / "m")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        dconv.load(tmp_path / "none")


def test_plain_skops_files_and_other_objects_are_refused(tmp_path):
    import skops.io

    skops.io.dump(model(), tmp_path / "plain")
    with pytest.raises(ValueError, match=r"no item named 'dconv\.json'"):
        dconv.load(tmp_path / "plain")
    dconv.save(model(), tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "m") as archive:
        header = archive.read("dconv.json")
    skops.io.dump(GaussianNB(), tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain", "a") as archive:
        archive.writestr("dconv.json", header)
    with pytest.raises(ValueError, match="it holds a GaussianNB"):
        dconv.load(tmp_path / "plain")


@pytest.mark.parametrize(
    ("classifier", "field", "value"),
    [
        (RandomForestClassifier(2, random_state=0), "left_child", 10**6),
        (RandomForestClassifier(2, random_state=0), "right_child", 0),  # a walk without end
        (RandomForestClassifier(2, random_state=0), "feature", 10**6),
        (GradientBoostingClassifier(n_estimators=2, random_state=0), "feature", -7),
        (HistGradientBoostingClassifier(max_iter=2, random_state=0), "left", 10**6),
        (HistGradientBoostingClassifier(max_iter=2, random_state=0), "feature_idx", 10**6),
    ],
    ids=lambda value: str(value).split("(")[0],
)
def test_trees_that_lead_astray_are_refused(tmp_path, classifier, field, value):
    """scikit-learn's compiled code would read wherever they point."""
    path = tmp_path / "m.dconv"
    dconv.save(model(classifier), path)
    planted = 0
    with zipfile.ZipFile(path) as archive:
        arrays = [name for name in archive.namelist() if name.endswith(".npy")]
    for name in arrays:

        def plant(data):
            nonlocal planted
            array = np.load(io.BytesIO(data), allow_pickle=False)
            if array.dtype.names is None or field not in array.dtype.names or len(array) < 3 or planted:
                return data
            array[field][0] = value
            planted += 1
            buffer = io.BytesIO()
            np.save(buffer, array)
            return buffer.getvalue()

        rewritten(path, **{name: plant})
    assert planted == 1
    with pytest.raises(ValueError, match="nodes point to where there is nothing"):
        dconv.load(path)


# --- versions ---


def test_another_scikit_learn_is_warned_of(tmp_path):
    path = tmp_path / "m.dconv"
    before = model()
    dconv.save(before, path)
    header_changed(path, lambda header: header["versions"].update({"scikit-learn": "1.2.3"}))
    with pytest.warns(InconsistentVersionWarning, match=r"1\.2\.3") as caught:
        after = dconv.load(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert_array_equal(after.predict(IMAGE), before.predict(IMAGE))


def test_same_versions_are_quiet(tmp_path):
    dconv.save(model(), tmp_path / "m")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dconv.load(tmp_path / "m")


def test_a_newer_format_is_refused(tmp_path):
    dconv.save(model(), tmp_path / "m")
    header_changed(tmp_path / "m", lambda header: header.update(format=2))
    with pytest.raises(ValueError, match="written in format 2, but this version of dconv reads formats up to 1"):
        dconv.load(tmp_path / "m")


def test_features_of_other_names_are_refused(tmp_path):
    dconv.save(model(features=ATROUS), tmp_path / "m")
    header_changed(tmp_path / "m", lambda header: header["features"]["names"].__setitem__(3, "intensity_new_d1"))
    with pytest.raises(ValueError, match="feature 3 was 'intensity_new_d1' and is now 'intensity_"):
        dconv.load(tmp_path / "m")


def test_features_computed_in_another_way_are_refused(tmp_path, monkeypatch):
    dconv.save(model(features=ATROUS), tmp_path / "m")
    dconv.load(tmp_path / "m")
    groups = importlib.import_module("dconv._bank").GROUPS
    monkeypatch.setitem(groups, "gradient", GROUPS["gradient"]._replace(compute=GROUPS["level"].compute))
    with pytest.raises(ValueError, match=r"feature 'intensity_gradient_d[12]' is computed differently"):
        dconv.load(tmp_path / "m")


def test_a_header_that_was_edited_is_refused(tmp_path):
    dconv.save(model(), tmp_path / "m")

    def edit(data):
        header = json.loads(data)
        header["features"]["n_features"] = 7
        return json.dumps(header).encode()

    rewritten(tmp_path / "m", **{"dconv.json": edit})
    with pytest.raises(ValueError, match="feature_hash is not that of the features"):
        dconv.load(tmp_path / "m")
