"""Nothing but the pixels tells the system: a classifier on all that reaches the browser finds nothing, and could have."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize
from scipy.special import expit
from support.studies import Voter, folder_of_samples, hosting

from sipo.annotate.create import CreateRequest, create
from sipo.annotate.study import Plan

ITEMS = 120


def guessed_right(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int = 8) -> float:
    """The cross-validated accuracy of a logistic regression; no group (an item) is both learned from and guessed."""
    x = (features - features.mean(0)) / (features.std(0) + 1e-9)
    x = np.hstack([x, np.ones((len(x), 1))])
    right = np.zeros(len(x), dtype=bool)
    for fold in range(folds):
        held = groups % folds == fold
        a, y = x[~held], labels[~held]

        def loss(w, a=a, y=y):
            p = expit(a @ w)
            return (np.logaddexp(0, a @ w) - y * (a @ w)).sum() + 0.5 * (w @ w), a.T @ (p - y) + w

        found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
        right[held] = (x[held] @ found > 0) == (labels[held] > 0.5)
    return float(right.mean())


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Every medium that an annotator of a study is sent: its brightness, and what else could tell the system.

    The systems differ in all but their role: flat small PNGs in a folder with a long name, noisy large JPEGs with metadata.
    """
    root = tmp_path_factory.mktemp("blind")
    prompts = [f"prompt {n}" for n in range(ITEMS)]
    flat, noisy = (
        folder_of_samples(root / "flat-and-small", 60, prompts),
        folder_of_samples(root / "a-much-longer-name", 180, prompts),
    )
    rng = np.random.default_rng(0)
    for n in range(ITEMS):
        Image.new("RGB", (48, 48), (60, 60, 60)).save(flat / f"{n:05d}.png")
        pixels = np.clip(rng.normal(180, 40, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(noisy / f"{n:05d}.png", "JPEG", quality=95, comment=b"noisy")
    create(CreateRequest([flat, noisy], root / "study", Plan(1, 1, 1)))
    rows = []
    with hosting(root / "study") as server:
        voter = Voter(server.links()["g1-1"])
        state, number = voter.state(), 0
        while state["status"] == "open":
            item = state["items"][0]
            for side, name in enumerate(item["media"]):
                answer = voter.client.get(f"{voter.link}media/{name}")
                rows.append((number, side, item, name, answer))
            state = voter.vote(item["slot"], "tie").json()
            number += 1
    return rows


def test_a_classifier_on_everything_but_the_pixels_finds_nothing(shown):
    labels, features, groups = [], [], []
    for number, side, item, name, answer in shown:
        level = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"), dtype=float).mean()
        labels.append(float(level > 120))
        codes = np.frombuffer(name.encode(), dtype=np.uint8)
        headers = sum(len(k) + len(v) for k, v in answer.headers.items())
        features.append([
            side, number, item["slot"], len(name), *codes[:8], codes.mean(), len(answer.content), headers, len(answer.headers),
            answer.elapsed.total_seconds(), answer.status_code, len(answer.headers["content-type"]),
        ])  # fmt: skip
        groups.append(number)
    labels, features, groups = np.array(labels), np.array(features, dtype=float), np.array(groups)
    assert labels.mean() == 0.5
    accuracy = guessed_right(features, labels, groups)
    assert accuracy < 0.5 + 3 * np.sqrt(0.25 / ITEMS), f"guessed right in {accuracy:.0%}"
    told = np.hstack([features, (labels + np.random.default_rng(1).normal(0, 0.3, len(labels)))[:, None]])
    assert guessed_right(told, labels, groups) > 0.9  # the classifier finds what is there


def test_both_results_of_an_item_are_answered_alike(shown):
    by_item: dict[int, list] = {}
    for number, _, _, _, answer in shown:
        by_item.setdefault(number, []).append(answer)
    for first, second in by_item.values():
        assert dict(first.headers) == dict(second.headers)
        assert len(first.content) == len(second.content)


def test_names_are_never_used_twice(shown):
    names = [name for *_, name, _ in shown]
    assert len(set(names)) == len(names) == 2 * ITEMS


def test_nothing_in_the_files_tells_but_the_pixels(shown):
    for *_, answer in shown:
        assert b"noisy" not in answer.content
        chunks, place = [], 8
        while place < len(answer.content):
            size = int.from_bytes(answer.content[place : place + 4])
            chunks.append(answer.content[place + 4 : place + 8])
            place += size + 12
        assert set(chunks) == {b"IHDR", b"IDAT", b"paDd", b"IEND"}


def test_the_state_names_no_system(shown):
    for _, _, item, _, _ in shown:
        assert set(item) == {"slot", "prompt", "media"}
        for name in ("flat-and-small", "a-much-longer-name"):  # too long for a random token to hold one
            assert name not in str(item)
