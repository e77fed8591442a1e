"""Videos through a model: what each frame's answer is, what is written, what stays in memory, and interruptions."""

from __future__ import annotations

import gc
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from grid_network import GridNetwork, photograph
from tiny_clips import corners, pictures_of, sounds_of, times_of, write_clip
from torch import Tensor, nn

import nonlocalseg as nls
from nonlocalseg.inference import clips, video
from nonlocalseg.inference.clips import Frame, open_clip
from nonlocalseg.inference.recording import suffix_for
from nonlocalseg.inference.video import Follower, label_video, predict_video
from nonlocalseg.view import View

pytest.importorskip("av")
PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
TIMES = (0, 40, 80, 400, 420, 1000)


class Brightest(nn.Module):
    """The class of a pixel is its strongest channel; it counts how often it is asked."""

    classes, palette, num_classes = ("red", "green", "blue"), PALETTE, 3

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.asked += 1
        return images * 10


def frame(image: np.ndarray, ticks: int) -> Frame:
    return Frame(image, ticks, Fraction(1, 10))


def test_each_frame_is_what_predict_says(tmp_path: Path) -> None:
    network = GridNetwork(False).eval()
    path = write_clip(
        tmp_path / "a.mkv", TIMES[:3], codec="ffv1", images=[photograph(48, 64, seed) for seed in range(3)]
    )
    with open_clip(path) as clip:
        images = [each.image for each in clip.frames()]
    for found, image, time in zip(predict_video(network, path, flip=True), images, TIMES, strict=False):
        expected = nls.predict(network, image, flip=True)
        assert torch.equal(found.mask, expected.mask)
        assert torch.equal(found.probabilities, expected.probabilities)
        assert (found.time, found.held, found.name) == (time / 1000, False, str(path))
        assert np.array_equal(found.image, image)


def test_every_second_frame_and_the_last_answer_between(tmp_path: Path) -> None:
    colours = [np.full((48, 64, 3), PALETTE[number % 3], np.uint8) for number in range(5)]
    path = write_clip(tmp_path / "a.mp4", TIMES[:5], images=colours)
    model = Brightest()
    found = list(predict_video(model, path, every=2))
    assert model.asked == 3
    assert [int(one.mask[20, 20]) for one in found] == [0, 0, 2, 2, 1]
    assert [one.held for one in found] == [False, True, False, True, False]
    assert [one.time for one in found] == [time / 1000 for time in TIMES[:5]]
    assert found[1].image[20, 20].argmax() == 1  # its own picture
    assert torch.equal(found[1].probabilities, found[0].probabilities)


def test_probabilities_are_averaged_over_time() -> None:
    network, images = GridNetwork(False).eval(), [photograph(48, 64, seed) for seed in range(4)]
    follower = Follower(network, View(), nls.Footage(smooth=0.75), torch.device("cpu"), None)
    mean: Tensor | None = None
    found = [follower.look(frame(image, number), "a") for number, image in enumerate(images)]
    for image, one in zip(images, found, strict=True):
        own = nls.predict(network, image).probabilities
        mean = own if mean is None else 0.75 * mean + 0.25 * own
        assert torch.allclose(one.probabilities, mean, atol=1e-6)  # those of an earlier frame are not overwritten
        assert torch.equal(one.mask, one.probabilities.argmax(0))
    plain = nls.predict(network, images[-1]).mask
    assert (found[-1].mask != plain).any()


def test_a_flicker_is_smoothed_away() -> None:
    dim, other = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    dim[..., 0], other[..., 1] = 60, 30
    shown = [dim, dim, other, dim]
    for smooth, expected in ((0.0, [0, 0, 1, 0]), (0.8, [0, 0, 0, 0])):
        follower = Follower(Brightest(), View(), nls.Footage(smooth=smooth), torch.device("cpu"), None)
        assert [int(follower.look(frame(one, n), "a").mask[0, 0]) for n, one in enumerate(shown)] == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_times_turn_and_sound_are_kept(tmp_path: Path, suffix: str) -> None:
    source = write_clip(tmp_path / "a.mp4", TIMES, rotation=90, sound="aac")
    out = tmp_path / f"b{suffix}"
    found = label_video(Brightest(), source, out)
    assert (found.out, found.frames, found.seen, found.damaged, found.ended) == (out, 6, 6, 0, "")
    begin = times_of(out)[0]
    assert [time - begin for time in times_of(out)] == list(TIMES)
    assert [data for _, data in sounds_of(out)] == [data for _, data in sounds_of(source)]
    assert all(abs(a - b) <= 1 for (a, _), (b, _) in zip(sounds_of(out), sounds_of(source), strict=True))
    shown = pictures_of(out)[0]
    expected = np.rot90(corners(48, 64))
    assert shown.shape == expected.shape
    # each field over its own class: red, green and blue as they are
    assert all(np.abs(shown[y, x].astype(int) - expected[y, x]).max() < 16 for y, x in ((10, 10), (50, 10), (50, 40)))
    with open_clip(out) as clip:
        assert next(clip.frames()).image.shape == expected.shape  # upright already


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    source = write_clip(tmp_path / "a.mkv", (0, 100), size=size, codec="libvpx-vp9")
    label_video(Brightest(), source, tmp_path / "b.mp4")
    assert {one.shape for one in pictures_of(tmp_path / "b.mp4")} == {(48, 64, 3)}  # H.264 has even sides
    label_video(Brightest(), source, tmp_path / "b.webm")
    assert {one.shape for one in pictures_of(tmp_path / "b.webm")} == {(*size, 3)}


def test_class_numbers_are_written_without_loss(tmp_path: Path) -> None:
    images = [photograph(47, 63, seed) for seed in range(3)]
    source = write_clip(tmp_path / "a.mkv", (0, 30, 90), size=(47, 63), codec="ffv1", images=images)
    network = GridNetwork(False).eval()
    masks = [one.mask.numpy() for one in predict_video(network, source)]
    label_video(network, source, tmp_path / "b.mkv", video="index")
    assert np.array_equal(pictures_of(tmp_path / "b.mkv", "gray"), masks)
    assert len(np.unique(masks)) > 2


def test_colours_alone(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", (0, 100))
    label_video(Brightest(), source, tmp_path / "b.mp4", video="colour")
    shown = pictures_of(tmp_path / "b.mp4")[0].astype(int)
    assert np.abs(shown[10, 10] - PALETTE[0]).max() < 12
    assert np.abs(shown[10, 50] - PALETTE[1]).max() < 12
    with pytest.raises(ValueError, match=r"--out: .*b\.mp4: a video of kind index is written as \.mkv; choose"):
        label_video(Brightest(), source, tmp_path / "b.mp4", video="index")


def test_a_sound_that_the_file_cannot_hold(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", sound="aac")
    with pytest.raises(ValueError, match=r"a\.mp4: a file \.webm cannot hold its sound \(aac\); choose --out b\.mkv"):
        label_video(Brightest(), source, tmp_path / "b.webm")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with open_clip(source) as clip:
        assert (suffix_for(clip, "overlay"), suffix_for(clip, "index")) == (".mp4", ".mkv")
    with open_clip(write_clip(tmp_path / "c.avi", sound="pcm_mulaw", codec="mpeg4")) as clip:
        assert suffix_for(clip, "colour") == ".mkv"


def test_few_frames_are_alive_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the video is."""
    alive = most = 0
    plain = clips.upright

    def counted(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
        nonlocal alive, most
        image = plain(image, matrix)
        alive += 1
        most = max(most, alive)
        weakref.finalize(image, gone)
        return image

    def gone() -> None:
        nonlocal alive
        alive -= 1

    monkeypatch.setattr(clips, "upright", counted)
    gc.disable()  # not even rings of references
    try:
        for count in (20, 90):
            most = 0
            source = write_clip(tmp_path / "a.mp4", tuple(range(0, 40 * count, 40)), sound="aac")
            label_video(Brightest(), source, tmp_path / "b.mp4", every=2, smooth=0.5)
            assert 1 <= most <= 4
    finally:
        gc.enable()


class Failing(Brightest):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        if self.asked == 4:
            raise self.error
        return super().forward(images)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no")])
def test_an_interrupted_video_leaves_no_file(tmp_path: Path, error: BaseException) -> None:
    source, out = write_clip(tmp_path / "a.mp4", sound="aac"), tmp_path / "out" / "b.mp4"
    with pytest.raises(type(error)):
        label_video(Failing(error), source, out)
    assert list(out.parent.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        label_video(Brightest(), source, out, stopped=lambda: True)
    assert list(out.parent.iterdir()) == []
    out.write_text("an earlier one")
    with pytest.raises(ValueError, match="cannot be read"):
        label_video(Brightest(), tmp_path / "out" / "b.mp4", out)
    assert out.read_text() == "an earlier one"


def test_a_live_source_ends_when_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been seen until then is a whole file."""
    plain = clips.Clip.__init__
    monkeypatch.setattr(clips.Clip, "__init__", lambda self, name, container, live: plain(self, name, container, True))
    source, out = write_clip(tmp_path / "a.mp4", sound="aac"), tmp_path / "b.mp4"
    model = Brightest()
    found = label_video(model, source, out, stopped=lambda: model.asked == 3)
    assert (found.frames, len(times_of(out))) == (3, 3)


def test_mistakes_in_options(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", (0, 100))
    for words, message in (
        ({"every": 0}, "every: 0; give 1 or more"),
        ({"smooth": 1.0}, "smooth: 1.0; give less than 1"),
        ({"smooth": -0.1}, "smooth: -0.1; give 0 or more"),
        ({"video": "both"}, "video: 'both' is unknown"),
        ({"flop": True}, "flop"),
    ):
        with pytest.raises(ValueError, match=message):
            list(video.predict_video(Brightest(), source, **words))
