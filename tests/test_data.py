"""The example's data: IDX files, downloads, and the warped digits."""

import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest
import torch

from stn_cuda import Affine, mnist, sample
from stn_cuda.data import denormalise, digits_theta, load_digits, load_mnist
from stn_cuda.mnist import CorruptDataError, DataUnavailableError, read_idx, read_images_and_labels

pytestmark = pytest.mark.quick

PIXELS = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
LABELS = np.array([7, 0, 9], np.uint8)


def idx(array: np.ndarray, type_code: int = 8) -> bytes:
    header = bytes((0, 0, type_code, array.ndim))
    return header + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_reads_what_was_written(tmp_path, pack):
    images = written(tmp_path, "images", pack(idx(PIXELS)))
    labels = written(tmp_path, "labels", pack(idx(LABELS)))
    pixels, digits = read_images_and_labels(images, labels)
    np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(digits, LABELS)


IMAGES = idx(PIXELS)
WRONG_FILES = {
    "truncated": (IMAGES[:-1], "must hold 2352 bytes for shape .3, 28, 28., got 2351"),
    "too long": (IMAGES + b"x", "got 2353"),
    "short header": (IMAGES[:9], "header must have 16 bytes, got 9"),
    "empty": (b"", "header must have 16 bytes, got 0"),
    "wrong magic": (b"\x00\x01" + IMAGES[2:], "magic number must be 2051"),
    "wrong type": (idx(PIXELS, 9), "magic number must be 2051"),
    "labels": (idx(np.zeros(20, np.uint8)), "must be 2051"),
    "huge shape": (IMAGES[:4] + b"\xff" * 12, "shape .4294967295, .* got 0"),
    "cut gzip": (gzip.compress(IMAGES)[:-9], "damaged gzip file"),
    "bad gzip": (b"\x1f\x8b" + bytes(40), "damaged gzip file"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_wrong_files_are_named(tmp_path, kind):
    content, message = WRONG_FILES[kind]
    path = written(tmp_path, "images-idx3-ubyte", content)
    with pytest.raises(CorruptDataError, match=message) as caught:
        read_idx(path, dims=3)
    assert str(path) in str(caught.value)


def test_not_gzip_despite_its_name(tmp_path):
    path = written(tmp_path, "images.gz", b"<html>moved</html>")
    with pytest.raises(CorruptDataError, match="must be a gzip file"):
        read_idx(path, dims=3)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (PIXELS, LABELS[:2], "must hold 3 labels"),
        (PIXELS[:, :27], LABELS, "28x28"),
        (PIXELS[:0], LABELS[:0], "28x28"),
        (PIXELS, np.array([0, 10, 1], np.uint8), "labels must be 0 to 9, got 10"),
    ],
    ids=["fewer labels", "other size", "empty", "label 10"],
)
def test_images_and_labels_must_belong_together(tmp_path, pixels, labels, message):
    images = written(tmp_path, "images", idx(pixels))
    with pytest.raises(CorruptDataError, match=message):
        read_images_and_labels(images, written(tmp_path, "labels", idx(labels)))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror on this machine, with MNIST's four names; returns what it serves."""
    contents = {file.name: gzip.compress(file.name.encode() * 50) for file in mnist.MNIST_FILES}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = contents.get(self.path.lstrip("/"))
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    files = tuple(
        mnist.RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )
    monkeypatch.setattr(mnist, "MNIST_FILES", files)
    monkeypatch.setattr(mnist, "MNIST_MIRRORS", (f"http://127.0.0.1:{httpd.server_port}/",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("STN_CUDA_DATA", raising=False)
    yield contents
    httpd.shutdown()
    httpd.server_close()


def test_download_and_cache(server, tmp_path):
    paths = mnist.mnist_files(show_progress=False)
    assert [path.parent for path in paths] == [tmp_path / "cache" / "stn_cuda" / "mnist"] * 4
    assert [path.read_bytes() for path in paths] == list(server.values())
    server.clear()  # from now on the mirror has nothing
    assert mnist.mnist_files(show_progress=False) == paths


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1] + b"?", "SHA-256 must be"),
        (lambda content: content[:-1], "must have .* bytes, got"),
        (lambda content: content + b"?", "got more than"),
        (lambda content: None, "404"),
    ],
    ids=["changed", "cut", "longer", "missing"],
)
def test_wrong_downloads_are_refused_and_not_kept(server, tmp_path, change, message):
    name = mnist.MNIST_FILES[0].name
    server[name] = change(server[name])
    with pytest.raises(DataUnavailableError, match=message) as caught:
        mnist.mnist_files(show_progress=False)
    assert "--dataset digits" in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.gz*"))


def test_data_folder_comes_before_the_cache(server, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    raw = mnist.MNIST_FILES[1].name.removesuffix(".gz")
    named = written(folder, raw, b"mine")
    monkeypatch.setenv("STN_CUDA_DATA", str(folder.parent))
    assert mnist.mnist_files(show_progress=False)[1] == named


def test_mnist(mnist_data):
    data = load_mnist()
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    # The constants are the training pixels' mean and deviation, rounded to four decimals.
    assert abs(data.train_images.mean().item()) < 1e-3
    assert abs(data.train_images.std().item() - 1) < 1e-3
    assert data.limited(7).train_labels.shape == (7,)


def test_digits_are_drawn_by_the_seed():
    first, again, other = load_digits(3), load_digits(3), load_digits(4)
    assert first.train_images.shape == (28740, 1, 28, 28)
    assert first.test_images.shape == (1800, 1, 28, 28)
    assert torch.equal(first.train_images, again.train_images)
    assert not torch.equal(first.train_images, other.train_images)
    assert torch.equal(first.test_images, other.test_images)
    grey = denormalise(first.train_images)
    assert -1e-5 < grey.min().item() < 1e-5
    assert 0.5 < grey.max().item() < 1 + 1e-5


def test_digits_theta_puts_the_image_where_it_says():
    # A white 8x8 image, half the canvas's side: its centre of mass is the centre asked for, and its
    # area a quarter of the canvas, whatever the rotation.
    angle = torch.tensor([0.0, 0.5, -1.0])
    centre = torch.tensor([[0.0, 0.0], [0.25, -0.125], [-0.2, 0.1]])
    theta = digits_theta(angle, torch.full((3,), 0.5), centre)
    canvas = sample(torch.ones(1, 1, 8, 8), Affine(theta), (64, 64))[:, 0]
    axis = (torch.arange(64) * 2 + 1) / 64 - 1
    mass = canvas.sum((1, 2))
    x, y = (canvas.sum(1) * axis).sum(1) / mass, (canvas.sum(2) * axis).sum(1) / mass
    # Bilinear edges are a pixel of the image (4 of the canvas's 64) wide, and symmetric.
    torch.testing.assert_close(torch.stack((x, y), 1), centre, rtol=0, atol=1 / 64)
    torch.testing.assert_close(mass / 64**2, torch.full((3,), 0.25), rtol=0.05, atol=0)
    # A positive angle turns clockwise: with y pointing down, the image's right end goes down.
    right = torch.zeros(1, 1, 8, 8)
    right[..., 4:] = 1
    turned = sample(
        right, Affine(digits_theta(torch.tensor([0.5]), torch.ones(1), torch.zeros(1, 2)))
    )
    assert turned[0, 0, 4:].sum() > turned[0, 0, :4].sum()
