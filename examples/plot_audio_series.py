"""
What sounds when?
=================

A recording is a series, and :class:`dconv.PixelClassifier` with ``ndim=1`` labels every sample of it: here tones,
chirps that sweep through frequencies, bursts of noise and clicks, in a made recording that goes through a WAV file. The
bank needs no spectrogram: each level of it is a band of frequencies, in which the activity tells how loud it is there
and the zero crossings tell the pitch. The picture is saved in `examples/output/`, or where you say:
``python examples/plot_audio_series.py picture.png``.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import signal
from scipy.io import wavfile

from dconv import AtrousFeatures, PixelClassifier

try:
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Two recordings
# --------------
#
# Events follow each other at random, of random length, loudness and pitch, over a hiss. The label of a sample is the
# number of its event in NAMES, from 1 on.

RATE = 8000  # samples a second
NAMES = ["silence", "tone", "chirp", "noise", "clicks"]


def event(name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return `n` samples of an event."""
    time = np.arange(n) / RATE
    low, high = np.sort(rng.uniform([300, 1500], [900, 3200]))
    if name == "tone":
        return np.sin(2 * np.pi * rng.uniform(300, 3000) * time)
    if name == "chirp":
        ends = (low, high) if rng.random() < 0.5 else (high, low)
        return signal.chirp(time, ends[0], time[-1], ends[1])
    if name == "noise":
        return 0.6 * rng.normal(size=n)
    if name == "clicks":
        train = np.zeros(n)
        train[rng.integers(0, 200) :: rng.integers(200, 500)] = 1
        return signal.lfilter([2.0], [1, -1.2, 0.7], train)  # each rings for a moment
    return np.zeros(n)


def record(path: Path, n_events: int, seed: int) -> np.ndarray:
    """Write a recording to a WAV file, and return the label of every sample."""
    rng = np.random.default_rng(seed)
    pieces, labels = [], []
    order = np.concatenate([rng.permutation(np.arange(1, len(NAMES))) for _ in range(n_events // 4)])
    for number in order:
        for label, seconds in ((0, rng.uniform(0.1, 0.3)), (number, rng.uniform(0.3, 0.6))):
            n = int(seconds * RATE)
            pieces.append(rng.uniform(0.3, 0.9) * event(NAMES[label], n, rng))
            labels.append(np.full(n, label + 1))
    sound = np.concatenate(pieces)
    sound += 0.01 * rng.normal(size=len(sound))
    wavfile.write(path, RATE, np.int16(32767 * np.clip(sound, -1, 1)))
    return np.concatenate(labels)


with tempfile.TemporaryDirectory() as folder:
    paths = [Path(folder) / name for name in ("learn.wav", "new.wav")]
    truth, new_truth = record(paths[0], 48, seed=0), record(paths[1], 12, seed=1)
    (_, sound), (rate, new_sound) = (wavfile.read(path) for path in paths)

# %%
# Learn from one
# --------------
#
# Seven levels have dilations up to 64 samples, 8 ms. How loud each is, and how often it crosses zero, is known over 8
# and over 32 ms to both sides. The integers of the file go in as they are. 1500 samples of each kind, drawn at random,
# are enough. A tone is hard to tell from a slow chirp: for as long as the bank looks, both have nearly one pitch.

bank = AtrousFeatures(n_levels=7, ndim=1)
model = PixelClassifier(bank, max_samples=1500, random_state=0).fit(sound, truth)

# %%
# Name the events of the other
# ----------------------------
#
# As a stream would be: in chunks of a second, each with the halo that the features look at. That gives, bit for bit,
# the labels of the whole.

left, right = model.features_.halo_[0]
chunks = []
for start in range(0, len(new_sound), rate):
    stop = min(start + rate, len(new_sound))
    first = max(start - left, 0)
    chunks.append(model.predict(new_sound[first : stop + right])[start - first : stop - first])
labels = np.concatenate(chunks)
print(f"in chunks as in one: {np.array_equal(labels, model.predict(new_sound))}")
print(f"{len(sound) / rate:.0f} s to learn from; of {len(new_sound) / rate:.0f} s of the other recording")
print(f"{np.mean(labels == new_truth):.1%} are named rightly")
for number, name in enumerate(NAMES, 1):
    print(f"  {name}: {np.mean(labels[new_truth == number] == number):.1%}")

# %%
# The picture
# -----------

colors = ListedColormap(["#e8e8e8", "#4c72b0", "#dd8452", "#8172b3", "#c44e52"])
seconds = len(new_sound) / rate
figure, axes = plt.subplots(
    4, 1, figsize=(11, 6.5), sharex=True, layout="constrained", height_ratios=[1.2, 3, 0.5, 0.5]
)
axes[0].plot(np.arange(len(new_sound)) / rate, new_sound / 32768, color="0.25", linewidth=0.4)
axes[0].set(ylabel="amplitude", title="a recording that was not learnt from", ylim=(-1, 1))
frequencies, times, power = signal.spectrogram(new_sound.astype(float), rate, nperseg=256, noverlap=192)
axes[1].pcolormesh(times, frequencies / 1000, 10 * np.log10(power + 1e-2), cmap="magma", rasterized=True)
axes[1].set_ylabel("frequency [kHz]")
for axis, track, name in ((axes[2], new_truth, "truth"), (axes[3], labels, "labels")):
    axis.imshow(
        track[np.newaxis], cmap=colors, vmin=0.5, vmax=5.5, aspect="auto", extent=(0, seconds, 0, 1),
        interpolation="nearest",
    )  # fmt: skip
    axis.set_yticks([0.5], [name])
axes[3].set(xlabel="time [s]", xlim=(0, seconds))
patches = [plt.Rectangle((0, 0), 1, 1, color=color) for color in colors.colors]
figure.legend(patches, NAMES, loc="outside lower center", ncols=len(NAMES), frameon=False)

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "output" / "plot_audio_series.png"
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=110)
print(f"saved as {path}")
plt.show()
