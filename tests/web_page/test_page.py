"""An exported page in headless Chromium: the same predictions as the run's, under its content security policy.

What needs onnxruntime-web is skipped if it is not in pytest's cache and cannot be downloaded, and all
of it without Chromium.
"""

from __future__ import annotations

import base64
import functools
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from clip_har import cli, commands
from clip_har.config import BackboneConfig, DataConfig, ExportConfig, OptimizerConfig, TrainConfig
from clip_har.demo import MODEL_DIR, write_dataset
from clip_har.errors import ConfigError
from clip_har.exporting import web_folder, web_runtime
from clip_har.photo_page import style_sheet
from clip_har.predict import AbstentionPolicy, Predictor
from clip_har.progress import SILENT
from report.conftest import browser  # noqa: F401  # a fixture
from samples import CLASSES, HUES, write_image
from web_page.conftest import SCRIPTS, served

Opened = Callable[..., Any]
Export = Callable[..., Path]
FILES = {
    *("index.html", "start.js", "page.js", "worker.js", "decode.js", "preprocess.js", "resize.js", "judge.js"),
    *("answer.js", "photos.js", "page.css", "model.json", "model.onnx", "ort.js", "ort.wasm"),
    *("onnxruntime-licence.txt", "export.json"),
}
LISTEN = """
window.answers = [];
const Original = Worker;
window.Worker = class extends Original {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", (event) => event.data.type === "answer" && window.answers.push(event.data));
  }
};
document.addEventListener("securitypolicyviolation", (event) => console.error(`refused: ${event.blockedURI}`));
"""
STAND_IN = {"ort.js": b"export const env = {};\n", "ort.wasm": b"\0asm"}


def train(data: Path, model: str, out: Path) -> Path:
    config = TrainConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0),
        method="ridge",
        optimizer=OptimizerConfig(epochs=1),
        out=out,
    )
    return commands.train(config).folder


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(photos, tiny_model, tmp_path_factory.mktemp("run") / "ridge")


@pytest.fixture(scope="module")
def runtime(pytestconfig: pytest.Config) -> dict[str, bytes]:
    """The real onnxruntime-web, from pytest's own cache or from npm's registry."""
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    if cache is None:
        pytest.skip("pytest has no cache for onnxruntime-web")
    patch = pytest.MonkeyPatch()
    patch.setattr(web_runtime, "TIMEOUT", 10.0)
    try:
        return web_runtime.web_runtime(None, cache.mkdir("web-runtime"), SILENT)
    except ConfigError as error:
        pytest.skip(error.what)
    finally:
        patch.undo()


def write_page(run: Path, out: Path, runtime: dict[str, bytes], **changes: Any) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(web_folder, "web_runtime", lambda *_: runtime)
    try:
        given = {"format": "web", "certificate": False, **changes}
        commands.export(run, ExportConfig(out=out, workers=0, **given))
    finally:
        patch.undo()
    return out


@pytest.fixture(scope="module")
def export(run: Path, runtime: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export the run with given rules, once for the module, into a folder below the server's root."""

    @functools.cache
    def once(**changes: Any) -> Path:
        return write_page(run, tmp_path_factory.mktemp("server") / "some" / "sub-folder", runtime, **changes)

    return once


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:  # noqa: F811
    """Opens a page from a server's sub-folder; it may not complain, nor ask for anything elsewhere."""
    complaints: list[str] = []
    requests: list[str] = []
    closing: list[Callable[[], Any]] = []

    def open_page(
        folder: Path,
        *scripts: str,
        ready: bool = True,
        hold: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> Any:
        manager = served(folder.parent.parent)
        url = manager.__enter__()
        closing.append(lambda: manager.__exit__(None, None, None))
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        closing.append(context.close)
        if hold is not None:
            context.route("**/model.onnx*", lambda route: hold(route))
        page = context.new_page()
        for script in (LISTEN, *scripts):
            page.add_init_script(script)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        context.on("request", lambda request: requests.append(request.url.removeprefix(f"{url}/some/sub-folder/")))
        page.goto(f"{url}/some/sub-folder/")
        if ready:
            page.wait_for_selector("html[data-threads]", timeout=60_000)
        return page

    yield open_page
    for close in reversed(closing):
        close()
    missing = "Failed to load resource: the server responded with a status of 404"  # Chromium reports every one
    assert [line for line in complaints if not line.startswith(missing)] == []
    assert [url for url in requests if url.startswith("http")] == []


def predicted(page: Any, files: list[Path]) -> list[dict[str, Any]]:
    """What the page's worker says of files, in their order."""
    count = page.locator("#photos li").count() + len(files)
    page.set_input_files("#file", files)
    done = f"#photos:not(:has(button:not(.done))) li:nth-child({count})"
    page.wait_for_selector(done, state="attached", timeout=120_000)
    answers: list[dict[str, Any]] = page.evaluate("window.answers")
    return sorted(answers, key=lambda answer: int(answer["id"]))[-len(files) :]


def assert_same(found: list[dict[str, Any]], run: Path, files: list[Path], **policy: Any) -> None:
    """At least 99 % of the verdicts, and nearly the probabilities, of the run."""
    predictor = Predictor(run, precision="float32", device="cpu")
    expected = list(predictor.predict(files, top=8, caution=AbstentionPolicy(**policy)))
    same = 0
    for item, one in zip(found, expected, strict=True):
        answer = item["answer"]
        possible = None if one.possible is None else list(one.possible)
        same += (answer["label"], answer["unsure"], answer["unknown"], answer["possible"]) == (
            *(one.label, one.unsure, one.unknown),
            possible,
        )
        tops = dict(one.top)
        for entry in answer["top"]:
            assert entry["probability"] == pytest.approx(tops[entry["label"]], abs=0.02)
        assert answer["confidence"] == pytest.approx(one.confidence, abs=0.02)
    assert same >= 0.99 * len(files)


# The folder


def test_the_folder_has_what_the_page_needs_and_nothing_else(run: Path, tmp_path: Path) -> None:
    out = write_page(run, tmp_path / "out", STAND_IN, abstain_below=0.4, coverage=0.8)
    assert {path.name for path in out.iterdir()} == FILES
    settings = json.loads((out / "model.json").read_text())
    described = json.loads((out / "export.json").read_text())
    assert settings["classes"] == described["classes"] == list(CLASSES)
    assert settings["preprocessing"] == described["preprocessing"]
    assert set(described["files"]) == FILES - {"export.json"}
    assert settings["model"]["bytes"] == (out / "model.onnx").stat().st_size
    rules = settings["calibration"]
    assert rules["temperature"] == described["calibration"]["temperature"]
    assert rules["sets_up_to"] == described["calibration"]["conformal"]["0.8"]
    assert (rules["coverage"], rules["answers_from"], rules["known_from"]) == (0.8, 0.4, 0.0)
    assert str(tmp_path.parent) not in (out / "model.json").read_text()
    assert (out / "page.css").read_text() == style_sheet((SCRIPTS / "page.css").read_text())


def test_the_page_refers_to_nothing_elsewhere(run: Path, tmp_path: Path) -> None:
    out = write_page(run, tmp_path / "out", STAND_IN)
    html = (out / "index.html").read_text()
    assert "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self';" in html
    assert "<script>" not in html and "<style" not in html and " style=" not in html
    for path in out.iterdir():
        if path.suffix in {".html", ".js", ".css"} and path.name != "ort.js":
            addresses = [word for word in path.read_text().split() if "://" in word]
            assert all("http://localhost:8000/" in word for word in addresses), path.name


def test_a_certificate_compares_the_model_with_the_run(run: Path, tmp_path: Path) -> None:
    out = write_page(run, tmp_path / "out", STAND_IN, certificate=True)
    found = json.loads((out / "certificate.json").read_text())
    assert found["agreement"] == 1.0 and found["images"] > 3


@pytest.mark.slow  # quantises a model
def test_the_model_may_have_8_bits(run: Path, tmp_path: Path) -> None:
    out = write_page(run, tmp_path / "out", STAND_IN, format="web-int8", min_agreement=0.0)
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "export.json").read_text())["format"] == "web-int8"


def test_settings_of_pages_are_refused_for_other_formats(run: Path, tmp_path: Path) -> None:
    changed: dict[str, Any]
    for changed in ({"coverage": 0.9}, {"web_runtime": tmp_path}):
        (name,) = changed
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} requires --format web, not onnx"):
            commands.export(run, ExportConfig(out=tmp_path / "out", **changed))


def test_a_model_that_no_browser_can_load_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_folder, "LARGEST", 1000)
    with pytest.raises(ConfigError, match=r"of weights, more than the .* that a browser can load"):
        write_page(run, tmp_path / "out", STAND_IN)
    assert not (tmp_path / "out").exists()


def test_the_command_says_how_to_see_the_page(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web_folder, "web_runtime", lambda *_: STAND_IN)
    out = tmp_path / "out"
    assert cli.main(["export", str(run), "--format=web", f"--out={out}", "--no-certificate", "--workers=0"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "python -m http.server --directory" in printed


# The page


@pytest.mark.slow  # trains on drawn scenes, and classifies as many in the browser
def test_predictions_of_demo_photos_are_those_of_the_run(
    opened: Opened, runtime: dict[str, bytes], tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "scenes", train_per_class=12, test_per_class=7)
    demo = train(data, f"local-dir:{MODEL_DIR}", tmp_path / "ridge")
    folder = write_page(demo, tmp_path / "some" / "page", runtime, abstain_below=0.5, coverage=0.9)
    folder = folder.rename(folder.with_name("sub-folder"))
    files = sorted((data / "test").rglob("*.jpg"))
    found = predicted(opened(folder), files)
    assert_same(found, demo, files, abstain_below=0.5, coverage=0.9)
    unsure = sum(item["answer"]["unsure"] for item in found)
    assert 0 < unsure < len(files), "the comparison needs both"


def swapping_profile() -> bytes:
    """A colour profile that exchanges red and blue where it is heeded; Python does not heed it."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"tmp ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tmp ", b"bXYZ", 1)


@pytest.fixture
def kinds(tmp_path: Path) -> list[Path]:
    """Images of several kinds: upright by EXIF, grey, transparent, with a palette or a profile, large, tiny, flat."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :130]
    pixels = np.stack([x * 2 % 256, y * 2, (x + y) % 256], axis=-1)
    pixels = np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = Image.fromarray(np.clip(x * 3, 0, 255).astype(np.uint8))
    transparent = image.copy()
    transparent.putalpha(alpha)
    saves: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("plain.png", image, {}),
        ("turned.jpg", image, {"exif": exif, "quality": 95}),
        ("progressive.jpg", image, {"progressive": True}),
        ("grey.jpg", image.convert("L"), {}),
        ("transparent.png", transparent, {}),
        ("palette.gif", image.convert("P"), {}),
        ("one.bmp", Image.new("RGB", (1, 1), (9, 200, 30)), {}),
        ("lossless.webp", image, {"lossless": True}),
        ("flat.png", image.resize((400, 12)), {}),
        ("large.jpg", image.resize((1900, 1300)), {}),
        ("profile.png", image, {"icc_profile": swapping_profile()}),
        ("profile.jpg", image, {"icc_profile": swapping_profile()}),
        ("deep.png", Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), {}),
    ]
    for name, content, options in saves:
        content.save(folder / name, **options)
    return [folder / name for name, *_ in saves]


def test_images_of_any_kind_are_read_as_python_reads_them(
    opened: Opened, export: Export, run: Path, kinds: list[Path]
) -> None:
    found = predicted(opened(export(abstain_below=0.5)), kinds)
    assert_same(found, run, kinds, abstain_below=0.5, coverage=0.9)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An image of each class."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed, label in enumerate(CLASSES):
        write_image(folder / f"{label}.png", HUES[label], seed=4000 + seed)
    return [folder / f"{label}.png" for label in CLASSES]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_photo_is_shown_with_its_actions(
    opened: Opened, export: Export, run: Path, pictures: list[Path], width: int, scheme: str
) -> None:
    page = opened(export(), viewport={"width": width, "height": 900}, color_scheme=scheme)
    predicted(page, pictures[:1])
    (expected,) = Predictor(run, precision="float32").predict(pictures[:1])
    rows = page.locator("#bars .bar").all()
    assert [row.locator(".label").text_content() for row in rows] == [label for label, _ in expected.top]
    shown = [float(row.locator(".value").text_content().removesuffix(" %")) for row in rows]
    assert shown == pytest.approx([100 * value for _, value in expected.top], abs=0.51)
    page.wait_for_timeout(300)  # the bars grow
    widths = [bar.bounding_box()["width"] for bar in page.locator(".track").all()]
    filled = [bar.bounding_box()["width"] / widths[0] for bar in page.locator(".fill").all()]
    assert filled == pytest.approx([value for _, value in expected.top], abs=0.01)
    assert page.locator("#picture").is_visible() and page.locator("#several").is_hidden()
    assert page.locator("#cannot-start").is_hidden() and page.locator("#loading").is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 27)")


def test_several_photos_are_a_list(opened: Opened, export: Export, pictures: list[Path]) -> None:
    page = opened(export())
    predicted(page, pictures)
    assert page.locator("#several-heading").text_content() == "3 of 3 photos done"
    entries = page.locator("#photos button")
    assert [entry.locator(".name").text_content() for entry in entries.all()] == [path.name for path in pictures]
    assert [entry.get_attribute("aria-pressed") for entry in entries.all()] == ["true", "false", "false"]
    entries.nth(2).focus()
    page.keyboard.press("Enter")
    assert page.locator("#picture").get_attribute("alt") == f"Your photo {pictures[2].name}"
    assert entries.nth(2).get_attribute("aria-pressed") == "true"
    page.locator("#clear").click()
    assert page.locator("#several").is_hidden() and page.locator("#answer").is_hidden()
    assert page.locator("#waiting").text_content() == "No photo yet."
    predicted(page, pictures[:1])


PUT = """async ([content, kind]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "photo.png", {type: "image/png"}));
  const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
    : new DragEvent("drop", {dataTransfer: data, bubbles: true});
  document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_photo_can_be_pasted_and_dropped(opened: Opened, export: Export, pictures: list[Path], kind: str) -> None:
    page = opened(export())
    page.evaluate(PUT, [base64.b64encode(pictures[1].read_bytes()).decode(), kind])
    page.wait_for_selector("#answer:not([hidden])")
    assert page.locator("#bars .bar").count() == 3


def test_an_unsure_prediction_is_shown_as_such(opened: Opened, export: Export, pictures: list[Path]) -> None:
    page = opened(export(abstain_below=1.0))
    predicted(page, pictures[:1])
    assert page.locator("#label").text_content() == "Unsure"
    assert page.locator("#percent").text_content().startswith("perhaps")
    assert "is below 1.00" in page.locator("#reason").text_content()
    assert page.locator("#status").text_content().startswith("Unsure, perhaps")


def test_none_of_these_is_shown_where_the_run_has_it(
    opened: Opened, export: Export, pictures: list[Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(export(), tmp_path / "some" / "sub-folder")
    settings = json.loads((folder / "model.json").read_text())
    settings["calibration"]["known_from"] = 1.0
    (folder / "model.json").write_text(json.dumps(settings))
    page = opened(folder)
    predicted(page, pictures[:1])
    assert page.locator("#label").text_content() == "None of these"
    assert "is below 1.00: likely none of the classes" in page.locator("#reason").text_content()


def huge_png(path: Path, side: int) -> None:
    """A small file that would be a large image."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    with path.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
            checksum = struct.pack(">I", zlib.crc32(name + content))
            stream.write(struct.pack(">I", len(content)) + name + content + checksum)


def test_broken_and_huge_images_are_a_sentence_and_the_next_is_predicted(
    opened: Opened, export: Export, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_bytes(b"buy milk\n" * 9)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "damaged.png").write_bytes(pictures[0].read_bytes()[:60])
    huge_png(tmp_path / "huge.png", 20_000)
    files = [tmp_path / name for name in ("notes.jpg", "empty.jpg", "damaged.png", "huge.png")]
    page = opened(export())
    found = predicted(page, [*files, pictures[0]])
    assert [item.get("error") for item in found] == [
        "not an image that this browser can decode",
        "empty file",
        "damaged or unusual PNG",
        "20000 x 20000 pixels, more than 128,000,000 in all",
        None,
    ]
    assert page.locator("#problem").text_content().startswith("The photo cannot be read: not an image")
    assert page.locator("#problem").get_attribute("role") == "alert"
    assert page.locator("#empty").text_content() == "Your browser cannot show this file."
    entries = page.locator("#photos button")
    entries.nth(3).click()
    assert page.locator("#empty").text_content() == "This file is not shown."
    assert entries.nth(3).locator("img").get_attribute("src") is None, "a huge image is not shown either"
    entries.nth(4).click()
    assert page.locator("#problem").is_hidden() and page.locator("#picture").is_visible()


def test_a_photo_that_ends_early_is_predicted_with_a_warning(opened: Opened, export: Export, kinds: list[Path]) -> None:
    whole = next(path for path in kinds if path.name == "large.jpg")
    cut = whole.with_name("cut.jpg")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    page = opened(export())
    (found,) = predicted(page, [cut])
    assert found["answer"]["warning"] == "ends early; the missing part may be grey"
    assert page.locator("#warning").text_content() == "The file ends early; the missing part may be grey."


def test_everything_is_reached_with_the_keyboard_and_has_a_name(
    opened: Opened, export: Export, pictures: list[Path]
) -> None:
    page = opened(export())
    predicted(page, pictures[:2])
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached == ["skip", "file", "camera", "thumbnail done", "thumbnail done", "clear"]
    for name in ("Choose photos", "Take photo"):
        assert page.get_by_label(name, exact=True).count() == 1
    assert page.locator("#camera").get_attribute("capture") == "environment"
    for name in ("status", "several-status"):
        assert page.locator(f"#{name}").get_attribute("aria-live") == "polite"


def test_photos_are_shown_while_the_model_loads(opened: Opened, export: Export, pictures: list[Path]) -> None:
    held: list[Any] = []
    page = opened(export(), ready=False, hold=held.append)
    page.wait_for_selector("html[data-started]")
    page.set_input_files("#file", pictures[0])
    page.wait_for_selector("#picture", state="visible")
    assert page.locator("#waiting").text_content() == "Waiting for the model …"
    assert page.locator("#result").get_attribute("aria-busy") is not None
    for _ in range(500):  # what runs the model comes first
        if not held:
            page.wait_for_timeout(20)
    held[0].continue_()
    page.wait_for_selector("#answer:not([hidden])", timeout=60_000)
    assert page.locator("#result").get_attribute("aria-busy") is None


def test_progress_is_shown_in_bytes(opened: Opened, export: Export) -> None:
    record = """new MutationObserver(() => {
      const text = document.getElementById("loading-text");
      if (text && !(window.loads ||= []).includes(text.textContent)) window.loads.push(text.textContent);
    }).observe(document, {subtree: true, childList: true, characterData: true});"""
    page = opened(export(), record)
    loads = page.evaluate("window.loads")
    sizes = [line for line in loads if line.startswith("Loading the model: ")]
    total = sum((export() / name).stat().st_size for name in ("ort.wasm", "model.onnx")) / 1e6
    assert sizes and all(line.endswith(f"of {total:.0f} MB") for line in sizes)
    assert loads[-1] == "Starting the model …"


# Where it cannot work


def test_without_webassembly_the_page_says_so(opened: Opened, export: Export) -> None:
    page = opened(export(), "delete window.WebAssembly;", ready=False)
    page.wait_for_selector("#cannot-start.known")
    assert page.locator("#cannot-start").text_content().startswith("This browser has no WebAssembly")
    assert page.locator("#sides").is_hidden()


def test_opened_as_a_file_the_page_says_so(browser: Any, run: Path, tmp_path: Path) -> None:  # noqa: F811
    out = write_page(run, tmp_path / "out", STAND_IN)
    page = browser.new_page()
    page.goto((out / "index.html").as_uri())
    page.wait_for_selector("#cannot-start", state="visible")
    assert "python -m http.server" in page.locator("#cannot-start").text_content()
    page.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.onnx", "The model could not be loaded: model.onnx cannot be loaded (status 404)."),
        ("ort.wasm", "The model could not be loaded: ort.wasm cannot be loaded (status 404)."),
        ("model.json", "model.json cannot be loaded: copy the whole folder of the export to the server."),
    ],
)
def test_a_missing_file_is_a_sentence(opened: Opened, export: Export, tmp_path: Path, name: str, said: str) -> None:
    folder = shutil.copytree(export(), tmp_path / "some" / "sub-folder")
    (folder / name).unlink()
    page = opened(folder, ready=False)
    page.wait_for_selector("#problem:not([hidden])")
    assert page.locator("#problem").text_content() == said
    assert page.locator("#loading").is_hidden()


def test_an_incomplete_model_is_a_sentence(opened: Opened, export: Export, tmp_path: Path) -> None:
    folder = shutil.copytree(export(), tmp_path / "some" / "sub-folder")
    size = (folder / "model.onnx").stat().st_size
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1])
    page = opened(folder, ready=False)
    page.wait_for_selector("#problem:not([hidden])")
    incomplete = f"The model could not be loaded: model.onnx is incomplete: {size - 1} of {size} bytes."
    assert page.locator("#problem").text_content() == incomplete
