"""
Code, comment, string or number?
================================

A text is a series of characters. :class:`dconv.CharEncoder` gives it channels, and :class:`dconv.PixelClassifier` with
``ndim=1`` says of every character what it belongs to: here of the source of Python, where `tokenize` knows the truth.
No grammar is given to it; it learns from some files of the standard library and is tried on others. With
``causal=True`` a label depends on what has been typed so far alone. The picture is saved in `examples/output/`, or
where you say:
``python examples/plot_text_series.py picture.png``.
"""

import importlib
import io
import sys
import tokenize
from pathlib import Path

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import make_pipeline

from dconv import AtrousFeatures, CharEncoder, PixelClassifier

try:
    import matplotlib.pyplot as plt
except ImportError as error:
    raise SystemExit('This example draws with matplotlib: pip install "dconv[examples]"') from error

# %%
# Files and their truth
# ---------------------

NAMES = ["code", "comment", "string", "number"]  # labels 1 to 4
TO_LEARN_FROM = ["textwrap", "shlex", "heapq", "csv", "sched", "colorsys", "bisect", "getopt", "quopri"]
TO_TRY = ["calendar", "fnmatch"]
KINDS = {tokenize.COMMENT: 2, tokenize.STRING: 3, tokenize.NUMBER: 4}
F_STRING = getattr(tokenize, "FSTRING_START", -1), getattr(tokenize, "FSTRING_END", -1)  # since Python 3.12


def truth(text: str) -> np.ndarray:
    """Return the label of every character."""
    lines = np.cumsum([0, *(len(line) for line in text.splitlines(keepends=True))])
    labels = np.ones(len(text), int)
    opened: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        start, stop = (int(lines[row - 1]) + column for row, column in (token.start, token.end))
        if token.type in KINDS:
            labels[start:stop] = KINDS[token.type]
        elif token.type == F_STRING[0]:
            opened.append(start)
        elif token.type == F_STRING[1]:
            labels[opened.pop() : stop] = 3
    return labels


def source(module: str) -> str:
    """Return the source of a module of the standard library."""
    return Path(str(importlib.import_module(module).__file__)).read_text("utf-8")


texts, new_texts = ([source(module) for module in modules] for modules in (TO_LEARN_FROM, TO_TRY))
labels, new_labels = ([truth(text) for text in group] for group in (texts, new_texts))

# %%
# Learn
# -----
#
# Each character is of a class (a lowercase letter, a digit, an opening bracket, a line break ...), and four that mean
# something in Python have a channel of their own besides. Every channel is smoothed into levels: how much of it there
# has been lately. The mean of the channels tells nothing, so ``groups=()`` leaves it out.

model = make_pipeline(
    CharEncoder(own_characters="#\"'\\"),
    PixelClassifier(
        AtrousFeatures(5, groups=(), color_groups=["level", "slope"], causal=True, ndim=1),
        ExtraTreesClassifier(50, min_samples_leaf=2, random_state=0),
        max_samples=2000,
        channel_axis=-1,
        random_state=0,
    ),
)
model.fit(texts, labels)

# %%
# Try
# ---

answers = model.predict(new_texts)
said, wanted = np.concatenate(answers), np.concatenate(new_labels)
print(f"{sum(map(len, texts))} characters to draw from, {len(wanted)} of other files to try on")
print(f"{np.mean(said == wanted):.1%} are right; {np.mean(wanted == 1):.1%} would be if all were called code")
for number, name in enumerate(NAMES, 1):
    print(f"  {name}: {np.mean(said[wanted == number] == number):.1%} of {np.count_nonzero(wanted == number)}")

# %%
# The picture
# -----------
#
# Some lines of a file that was not learnt from, coloured by what each character is said to be. Where that is wrong the
# character stands on red.

COLORS = ["#222222", "#3a8f3a", "#b5521b", "#1f5fbf"]
FIRST, N_LINES, WIDTH = 90, 44, 80

text, answer, expected = new_texts[0], answers[0], new_labels[0]
figure, axes = plt.subplots(figsize=(8.4, 9.4), layout="constrained")
position = sum(len(line) for line in text.splitlines(keepends=True)[:FIRST])
for row, line in enumerate(text.splitlines(keepends=True)[FIRST : FIRST + N_LINES]):
    for column, character in enumerate(line[:WIDTH]):
        label = answer[position + column]
        if label != expected[position + column]:
            axes.add_patch(plt.Rectangle((column, row - 0.5), 1, 1, color="#ffb3b3", linewidth=0))
        if not character.isspace():
            style = {"family": "monospace", "size": 9, "va": "center_baseline", "ha": "center"}
            axes.text(column + 0.5, row, character, color=COLORS[label - 1], parse_math=False, **style)
    position += len(line)
axes.set(xlim=(0, WIDTH), ylim=(N_LINES, -1), title=f"{TO_TRY[0]}.py, lines {FIRST + 1} to {FIRST + N_LINES}")
axes.set_axis_off()
handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in (*COLORS, "#ffb3b3")]
figure.legend(handles, [*NAMES, "wrong"], loc="outside lower center", ncols=5, frameon=False)

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "output" / "plot_text_series.png"
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=110)
print(f"saved as {path}")
plt.show()
