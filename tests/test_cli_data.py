"""The commands of `clip-har data`: what they print and write, their exit codes, one line for every wrong input."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audit.datasets import fill, jpeg, put, scene
from clip_har import cli
from clip_har.dataset import read_manifest
from clip_har.demo import write_dataset

COMMANDS = ("audit", "clean", "split", "verify")


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Exit code, standard output with its spaces folded, and standard error."""
    code = cli.main(["data", *map(str, argv)])
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), captured.err


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line on standard error of a command line that must exit with 2."""
    code, out, err = run(capsys, *argv)
    assert (code, out, "Traceback" in err) == (2, "", False), err
    (line,) = (line for line in err.splitlines() if line.startswith("clip-har:"))
    return line


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """12 good images, a copy of a test image in train, and one that is cut off."""
    root = fill(tmp_path / "data")
    put(root, "train/cycling/leak.jpg", (root / "test/cycling/0.jpg").read_bytes())
    put(root, "train/running/cut.jpg", jpeg(scene(9))[:-900])
    return root


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of the demonstration's 15 actions, three of them under the wrong class."""
    root = write_dataset(tmp_path_factory.mktemp("demo") / "scenes", train_per_class=8, test_per_class=0)
    for place in SWAPPED:
        put(root, place, (root / SWAPPED[place]).read_bytes())
        (root / SWAPPED[place]).unlink()
    return root


SWAPPED = {
    "train/cycling/wrong 1.jpg": "train/sleeping/sleeping_0001.jpg",
    "train/sleeping/wrong 2.jpg": "train/cycling/cycling_0002.jpg",
    "train/drinking/wrong 3.jpg": "train/running/running_0003.jpg",
}


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_each_flag_and_gives_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"clip-har data {command}" in out and "Example:" in out


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from clip_har import cli; cli.main(['data', 'audit', '--help']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


# Audit


def test_an_audit_exits_with_3_above_a_limit_and_with_0_within(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_file = tmp_path / "audit.json"
    options = ("--no-embeddings", "--workers", 0)
    code, out, _ = run(capsys, "audit", leaking, *options, "--json", json_file)
    assert code == 3
    assert "leaks 1 0 test/cycling/0.jpg, train/cycling/leak.jpg: The same file in test and train" in out
    assert "label errors - none needs a model" in out
    assert f"JSON {json_file}" in out
    assert f"Next clip-har data clean {leaking} --no-embeddings --workers 0 --plan plan.csv" in out
    assert json.loads(json_file.read_text())["clean"] is False
    assert run(capsys, "audit", leaking, *options, "--max-leaks", 1, "--max-unreadable", "none")[0] == 0
    assert run(capsys, "audit", leaking, *options, "--max-leaks", 1)[0] == 3
    code, out, _ = run(capsys, "audit", fill(leaking.parent / "clean"), *options)
    assert code == 0 and out.endswith(f"Next clip-har data split {leaking.parent / 'clean'}")


def test_the_page_says_the_command_that_makes_it_again(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out" / "audit page.html"
    argv = ("--no-embeddings", "--distance", "8", "--workers", "0", "--max-leaks", "none", "--html", str(page))
    assert run(capsys, "audit", leaking, *argv)[0] == 3
    command = shlex.join(["clip-har", "data", "audit", str(leaking), *argv])
    assert f"<code>{command}</code>" in page.read_text().replace("&#39;", "'")
    first = page.read_bytes()
    assert cli.main(shlex.split(command)[1:]) == 3
    assert page.read_bytes() == first


def test_an_audit_with_a_model_finds_planted_label_errors(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_file = tmp_path / "audit.json"
    argv = (
        "audit",
        demo,
        "--model",
        "demo",
        "--precision",
        "float32",
        "--workers",
        0,
        "--json",
        json_file,
        "--max-duplicates",
        "none",
    )
    code, out, _ = run(capsys, *argv, "--max-leaks", "none", "--max-conflicts", "none")
    assert code == 0 and "needs a model" not in out
    found = json.loads(json_file.read_text())
    assert found["model"] == "demo" and found["images"] == 120
    suspects = [finding["files"][0]["path"] for finding in found["findings"] if finding["kind"] == "label"]
    assert set(SWAPPED) <= set(suspects[:12])
    given = {finding["files"][0]["path"]: finding["given"] for finding in found["findings"] if "given" in finding}
    assert given["train/cycling/wrong 1.jpg"]["class"] == "cycling"
    assert run(capsys, *argv, "--max-label-errors", 0)[0] == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["audit"], "data"),
        (["audit", "/no/such"], "Dataset not found: /no/such"),
        (["audit", "d", "--distance", "40"], "--distance must be in [0, 16], not 40"),
        (["audit", "d", "--max-leaks", "-1"], "--max-leaks must be at least 0, or none for any number, not -1"),
        (["audit", "d", "--max-leak", "1"], "--max-leaks"),
        (["clean", "d"], "--plan"),
        (["clean", "d", "--plan", "no.csv", "--out", "o.csv"], "Plan no.csv not found"),
        (["split", "d", "--folds", "1"], "--folds must be at least 2, not 1"),
        (["split", "d", "--group-by", "no.csv"], "--group-by no.csv is neither near-duplicates nor none nor a file"),
        (["verify", "d"], "--manifest"),
        (["verify", "d", "--manifest", "no.csv"], "The manifest no.csv does not exist"),
        (["slpit", "d"], "split"),
    ],
)
def test_wrong_input_is_refused_in_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, *argv)


def test_a_model_that_is_not_there_offers_to_go_without(leaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "audit", leaking, "--model", "local-dir:/no/such", "--workers", 0)
    assert line.endswith("Or audit without a model: --no-embeddings.")


# Clean


def test_a_plan_is_written_then_applied(leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, clean = tmp_path / "my plan.csv", tmp_path / "clean.csv"
    code, out, _ = run(capsys, "clean", leaking, "--no-embeddings", "--workers", 0, "--plan", plan)
    assert code == 0
    assert f"When it is edited clip-har data clean {leaking} --plan '{plan}' --out clean.csv" in out
    with plan.open(newline="") as stream:
        actions = {row["path"]: row["action"] for row in csv.DictReader(stream)}
    dropped = {"train/cycling/leak.jpg", "train/running/cut.jpg"}
    assert {name for name, action in actions.items() if action == "drop"} == dropped and len(actions) == 14
    code, out, _ = run(capsys, "clean", leaking, "--plan", plan, "--out", clean)
    assert code == 0 and "drop 2, keep 12" in out
    assert len(read_manifest(clean)) == 12
    assert refused(capsys, "clean", leaking, "--plan", plan, "--out", clean).endswith(
        f"{clean} exists. Pass a new file with --out, or delete this one."
    )
    assert f"The plan {plan} already exists" in refused(capsys, "clean", leaking, "--plan", plan)


def test_settings_of_the_audit_are_accepted_where_a_plan_is_applied(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.csv"
    argv = ("clean", leaking, "--no-embeddings", "--workers", 0, "--plan", plan)
    assert run(capsys, *argv)[0] == 0
    note = "settings of the audit and --relabel-suspects have no effect"
    for number, flags in enumerate([argv, (*argv, "--relabel-suspects"), ("clean", leaking, "--plan", plan)]):
        code, out, err = run(capsys, *flags, "--out", tmp_path / f"clean {number}.csv")
        assert code == 0 and "drop 2, keep 12" in out
        assert err.count(note) == (1 if number < 2 else 0)


def test_suspects_are_relabelled_where_asked(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.csv"
    argv = (
        "clean",
        demo,
        "--model",
        "demo",
        "--precision",
        "float32",
        "--workers",
        0,
        "--plan",
        plan,
        "--relabel-suspects",
    )
    # Drawn scenes look alike, and copies would be dropped.
    assert run(capsys, *argv, "--similarity", 1, "--distance", 0)[0] == 0
    with plan.open(newline="") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    relabelled = {name for name, row in rows.items() if row["action"] == "relabel"}
    assert set(SWAPPED) <= relabelled
    assert all(rows[name]["new_class"] and rows[name]["new_class"] != rows[name]["class"] for name in relabelled)


# Split and verify


def test_split_says_what_it_wrote_and_what_to_do_next(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_file = tmp_path / "m.csv"
    code, out, _ = run(capsys, "split", leaking, "--out", out_file, "--workers", 0, "--pool", "--val-fraction", "0.2")
    assert code == 0
    rows = read_manifest(out_file)
    assert len(rows) == 14
    assert f"{out_file}: 2 classes; train 10, val 2, test 2 images" in out
    assert "Kept together: 2 images in 1 group " in out  # the leak and its original
    assert f"Next clip-har compare --data {leaking} --manifest {out_file}" in out


def test_folds_are_files_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(tmp_path / "data", splits=("train",), per_class=6)
    out_file = tmp_path / "m.csv"
    code, out, _ = run(capsys, "split", root, "--out", out_file, "--folds", 3, "--group-by", "none")
    assert code == 0
    files = [tmp_path / f"m-fold-{number}.csv" for number in (1, 2, 3)]
    assert not out_file.exists() and all(f"{path}: 2 classes; train 6, val 2, test 4 images" in out for path in files)
    tested = [row.name for path in files for row in read_manifest(path) if row.split == "test"]
    assert len(tested) == len(set(tested)) == 12


def test_verify_exits_with_3_where_images_are_missing_or_altered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, manifest, differs = fill(tmp_path / "data"), tmp_path / "m.csv", tmp_path / "differs.csv"
    assert run(capsys, "split", root, "--out", manifest, "--group-by", "none")[0] == 0
    copy = shutil.copytree(root, tmp_path / "copy")
    (copy / "test/running/0.jpg").rename(copy / "test/running/renamed.jpg")
    argv = ("verify", copy, "--manifest", manifest)
    code, out, _ = run(capsys, *argv)
    assert code == 0 and out.endswith(f"{copy} has all 12 images of {manifest}")
    assert "Under another name, of equal content: 1 (test/running/0.jpg is test/running/renamed.jpg)" in out
    put(copy, "train/running/extra.jpg", 5)
    assert run(capsys, *argv)[0] == 0
    assert run(capsys, *argv, "--strict")[0] == 3
    (copy / "train/cycling/1.jpg").unlink()
    code, out, _ = run(capsys, *argv, "--out", differs)
    assert code == 3
    assert f"{copy} does not have all 12 images of {manifest}" in out and f"All that differs {differs}" in out
    with differs.open(newline="") as stream:
        assert [row["finding"] for row in csv.DictReader(stream)] == ["moved", "missing", "extra"]


@pytest.mark.parametrize("words", [["data", "audit"], ["data", "fetch", "har"], ["data", "split"]])
def test_a_wrong_flag_names_the_help_of_its_own_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--bogus", "1"]) == 2
    assert capsys.readouterr().err.endswith(f"See clip-har {words[0]} {words[1]} --help.\n")
